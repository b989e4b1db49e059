/* Forms whose numbers are all stored: dense, and codes of each number or block of numbers. */
#include "reader.h"

#define GROUP_MULTIPLE 8
#define LARGEST_GROUP 65536

tlm_status tlm_read_dense(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_json type;
    tlm_status status = tlm_find_field(reader, spec, "type", &type);
    if (status != TLM_OK) {
        return status;
    }
    bool half = tlm_json_equals(type, "float16");
    if (!half && !tlm_json_equals(type, "float32")) {
        return tlm_refuse(reader, "type is %.*s, expected float32 or float16",
                          tlm_shown_size(type), tlm_shown(type));
    }
    tlm_type stored = half ? TLM_F16 : TLM_F32;
    const void *values;
    status = tlm_read_table(reader, "weight", stored, matrix->out, matrix->in, &values);
    if (status != TLM_OK) {
        return status;
    }
    matrix->u.dense.values = values;
    matrix->u.dense.half = half;
    return tlm_check_finite(reader, "weight", stored, values,
                            (uint64_t)matrix->out * matrix->in);
}

/* Read how many columns share a scale; `whole_matrix`, if not NULL, receives whether all do. */
static tlm_status read_group(const tlm_reader *reader, tlm_json spec, uint32_t columns,
                             int64_t least, int64_t most, uint32_t *group, bool *whole_matrix)
{
    tlm_json value;
    tlm_status status = tlm_find_field(reader, spec, "group", &value);
    if (status != TLM_OK) {
        return status;
    }
    *group = columns;
    if (whole_matrix != NULL) {
        *whole_matrix = tlm_json_equals(value, "matrix");
        if (*whole_matrix) {
            return TLM_OK;
        }
    }
    if (value.begin == NULL || tlm_json_is_null(value)) {
        return TLM_OK;
    }
    int64_t number;
    if (!tlm_json_integer(value, &number) || number < least || number > most ||
        number % GROUP_MULTIPLE != 0) {
        return tlm_refuse(reader, "group is %.*s, expected a multiple of 8 from %ld to %ld%s",
                          tlm_shown_size(value), tlm_shown(value), (long)least,
                          (long)most,
                          whole_matrix == NULL ? " or null" : ", \"matrix\" or null");
    }
    *group = (uint32_t)number;
    return TLM_OK;
}

static uint32_t group_count(uint32_t columns, uint32_t group)
{
    return columns / group + (columns % group != 0);
}

/* Runs of four bytes a row, of codes of `bits` each. */
static uint64_t runs_of(uint32_t columns, uint32_t bits)
{
    return (tlm_round_up(columns, 32 / bits)) / (32 / bits);
}

static uint64_t packed_code_bytes(uint32_t rows, uint32_t columns, uint32_t bits)
{
    uint64_t runs = bits == 3 ? runs_of(columns, 1) + runs_of(columns, 2) : runs_of(columns, bits);
    return tlm_padded_rows(rows) * 4 * runs;
}

/* Whether a code of 8 bits in the matrix, padding left out, is -128. */
static bool has_least_code(const uint8_t *codes, uint32_t rows, uint32_t columns)
{
    uint64_t fours = runs_of(columns, 8);
    if (memchr(codes, 0x80, (size_t)(tlm_padded_rows(rows) * 4 * fours)) == NULL) {
        return false; /* the usual case, at the speed of memory */
    }
    for (uint64_t start = 0; start < rows; start += TLM_BLOCK_ROWS) {
        uint32_t height = tlm_block_height(rows, (uint32_t)(start / TLM_BLOCK_ROWS));
        uint64_t real = rows - start < height ? rows - start : height;
        for (uint64_t four = 0; four < fours; four++, codes += (uint64_t)height * 4) {
            uint64_t inside = columns - four * 4 < 4 ? columns - four * 4 : 4;
            unsigned found = 0;
            for (uint64_t i = 0; i < real * 4; i++) {
                found |= (codes[i] == 0x80) & (i % 4 < inside);
            }
            if (found) {
                return true;
            }
        }
    }
    return false;
}

static tlm_status read_levels(const tlm_reader *reader, tlm_json spec, uint32_t bits, bool zeros,
                              bool *mid_rise)
{
    tlm_json levels;
    tlm_status status = tlm_find_field(reader, spec, "levels", &levels);
    if (status != TLM_OK) {
        return status;
    }
    *mid_rise = tlm_json_equals(levels, "mid_rise");
    if (!*mid_rise && levels.begin != NULL && !tlm_json_equals(levels, "mid_tread")) {
        return tlm_refuse(reader, "levels is %.*s, expected mid_tread or mid_rise",
                          tlm_shown_size(levels), tlm_shown(levels));
    }
    if (*mid_rise && (zeros || bits == 8)) {
        return tlm_refuse(reader,
                          "levels is mid_rise, which needs symmetric codes of at most 4 bits");
    }
    return TLM_OK;
}

tlm_status tlm_read_quantized(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    static const bool no = false;
    tlm_quantized *q = &matrix->u.quantized;
    uint32_t bits, group;
    bool whole_matrix, has_zeros;
    tlm_status status = tlm_read_integer(reader, spec, "bits", 2, 8, &bits);
    if (status == TLM_OK && bits > 4 && bits < 8) {
        status = tlm_refuse(reader, "bits is %u, expected 8, 4, 3 or 2", bits);
    }
    if (status == TLM_OK) {
        status = read_group(reader, spec, matrix->in, GROUP_MULTIPLE, LARGEST_GROUP, &group,
                            &whole_matrix);
    }
    if (status == TLM_OK) {
        status = tlm_read_flag(reader, spec, "zero_points", &no, &has_zeros);
    }
    if (status == TLM_OK) {
        status = read_levels(reader, spec, bits, has_zeros, &q->mid_rise);
    }
    if (status != TLM_OK) {
        return status;
    }
    q->bits = (uint8_t)bits;
    q->group = whole_matrix ? 0 : group;
    q->groups = whole_matrix ? 1 : group_count(matrix->in, group);
    uint64_t count = whole_matrix ? 1 : tlm_padded_rows(matrix->out) * q->groups;
    const void *codes, *scales, *zeros = NULL;
    status = tlm_read_tensor(reader, "codes", TLM_U8,
                             packed_code_bytes(matrix->out, matrix->in, bits), &codes);
    if (status == TLM_OK) {
        status = tlm_read_finite(reader, "scales", TLM_F16, count, &scales);
    }
    if (status == TLM_OK && has_zeros) {
        status = tlm_read_tensor(reader, "zeros", TLM_I8, count, &zeros);
    }
    if (status != TLM_OK) {
        return status;
    }
    q->codes = codes;
    q->scales = scales;
    q->zeros = zeros;
    if (bits == 8 && has_least_code(q->codes, matrix->out, matrix->in)) {
        return tlm_refuse(reader, "tensor codes holds -128, which 8-bit codes leave out");
    }
    return TLM_OK;
}

/* Bytes of a packed matrix of nibbles. */
static uint64_t nibble_bytes(uint32_t rows, uint64_t columns)
{
    return tlm_padded_rows(rows) / 2 * columns;
}

static uint64_t plane_bytes(const tlm_matrix *matrix, uint32_t bits)
{
    return nibble_bytes(matrix->out, tlm_round_up(matrix->in, 4) / 4 * bits);
}

tlm_status tlm_read_codebook(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_codebook *book = &matrix->u.codebook;
    tlm_json scope;
    uint32_t bits;
    const void *codes, *values;
    tlm_status status = tlm_find_field(reader, spec, "scope", &scope);
    if (status != TLM_OK) {
        return status;
    }
    book->per_row = tlm_json_equals(scope, "row");
    if (!book->per_row && !tlm_json_equals(scope, "matrix")) {
        return tlm_refuse(reader, "scope is %.*s, expected matrix or row", tlm_shown_size(scope),
                          tlm_shown(scope));
    }
    status = tlm_read_integer(reader, spec, "bits", book->per_row ? 2 : 1, book->per_row ? 4 : 8,
                              &bits);
    if (status == TLM_OK) {
        status = tlm_read_tensor(reader, "codes", TLM_U8, plane_bytes(matrix, bits), &codes);
    }
    if (status == TLM_OK) {
        uint64_t lists = book->per_row ? tlm_padded_rows(matrix->out) : 1;
        status = tlm_read_finite(reader, "values", TLM_F16, lists << bits, &values);
    }
    if (status == TLM_OK) {
        book->codes = codes;
        book->values = values;
        book->bits = (uint8_t)bits;
    }
    return status;
}

tlm_status tlm_read_binary_codes(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_binary_codes *binary = &matrix->u.binary_codes;
    uint32_t bits, group;
    const void *codes, *scales;
    tlm_status status = tlm_read_integer(reader, spec, "bits", 1, 4, &bits);
    if (status == TLM_OK) {
        status = read_group(reader, spec, matrix->in, 16, 128, &group, NULL);
    }
    if (status == TLM_OK) {
        status = tlm_read_tensor(reader, "codes", TLM_U8, plane_bytes(matrix, bits), &codes);
    }
    if (status == TLM_OK) {
        uint64_t count = tlm_padded_rows(matrix->out) * group_count(matrix->in, group);
        status = tlm_read_finite(reader, "scales", TLM_F16, count * bits, &scales);
    }
    if (status == TLM_OK) {
        *binary = (tlm_binary_codes){codes, scales, group, group_count(matrix->in, group),
                                     (uint8_t)bits};
    }
    return status;
}

tlm_status tlm_read_product_codes(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_product_codes *product = &matrix->u.product_codes;
    bool has_norms;
    const void *codes, *centroids, *norms = NULL;
    tlm_status status = tlm_read_integer(reader, spec, "centroids", 16, 256, &product->count);
    if (status == TLM_OK && product->count != 16 && product->count != 256) {
        status = tlm_refuse(reader, "centroids is %u, expected 16 or 256", product->count);
    }
    if (status == TLM_OK) {
        status = tlm_read_integer(reader, spec, "size", 1, 64, &product->size);
    }
    if (status == TLM_OK) {
        status = tlm_read_flag(reader, spec, "shared", NULL, &product->shared);
    }
    if (status == TLM_OK) {
        status = tlm_read_flag(reader, spec, "norms", NULL, &has_norms);
    }
    if (status != TLM_OK) {
        return status;
    }
    product->blocks = group_count(matrix->in, product->size);
    uint64_t bytes = product->count == 16 ? nibble_bytes(matrix->out, product->blocks)
                                          : tlm_padded_rows(matrix->out) * product->blocks;
    uint64_t lists = product->shared ? 1 : product->blocks;
    status = tlm_read_tensor(reader, "codes", TLM_U8, bytes, &codes);
    if (status == TLM_OK) {
        status = tlm_read_finite(reader, "centroids", TLM_F16,
                                 lists * product->count * product->size, &centroids);
    }
    if (status == TLM_OK && has_norms) {
        status = tlm_read_finite(reader, "norms", TLM_F16, tlm_padded_rows(matrix->out), &norms);
    }
    if (status == TLM_OK) {
        product->codes = codes;
        product->centroids = centroids;
        product->norms = norms;
    }
    return status;
}
