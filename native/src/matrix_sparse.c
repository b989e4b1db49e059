/* Forms with fixed zeros: which places are stored, and their values. */
#include "reader.h"

static bool is_quantized(const tlm_matrix *matrix)
{
    return matrix->form == TLM_SPARSE_QUANTIZED || matrix->form == TLM_BLOCK_SPARSE_QUANTIZED;
}

/* The count rounded up to whole units of 64 bytes, at least one. */
static uint64_t padded_count(uint64_t count, uint64_t per_unit)
{
    return count == 0 ? per_unit : tlm_round_up(count, per_unit);
}

static bool has_byte(const uint8_t *bytes, uint64_t count, uint8_t value)
{
    return memchr(bytes, value, (size_t)count) != NULL;
}

static tlm_status read_codes(const tlm_reader *reader, tlm_json spec, uint32_t rows,
                             uint64_t count, tlm_stored_values *stored)
{
    uint32_t bits;
    const void *codes, *scales;
    tlm_status status = tlm_read_integer(reader, spec, "bits", 4, 8, &bits);
    if (status == TLM_OK && bits != 4 && bits != 8) {
        status = tlm_refuse(reader, "bits is %u, expected 8 or 4", bits);
    }
    if (status != TLM_OK) {
        return status;
    }
    uint64_t bytes = padded_count(count, TLM_ALIGNMENT * 8 / bits) / (8 / bits);
    status = tlm_read_tensor(reader, "codes", TLM_U8, bytes, &codes);
    if (status == TLM_OK && bits == 8 && has_byte(codes, bytes, 0x80)) {
        status = tlm_refuse(reader, "tensor codes holds -128, which 8-bit codes leave out");
    }
    if (status == TLM_OK) {
        status = tlm_read_finite(reader, "scales", TLM_F16, tlm_padded_rows(rows), &scales);
    }
    if (status == TLM_OK) {
        stored->codes = codes;
        stored->scales = scales;
        stored->bits = (uint8_t)bits;
    }
    return status;
}

/* Read the values, or codes and scales, of `count` stored numbers. */
static tlm_status read_stored(const tlm_reader *reader, tlm_json spec, const tlm_matrix *matrix,
                              uint64_t count, tlm_stored_values *stored)
{
    if (is_quantized(matrix)) {
        return read_codes(reader, spec, matrix->out, count, stored);
    }
    tlm_json type;
    tlm_status status = tlm_find_field(reader, spec, "type", &type);
    if (status != TLM_OK) {
        return status;
    }
    stored->half = tlm_json_equals(type, "float16");
    if (!stored->half && !tlm_json_equals(type, "float32")) {
        return tlm_refuse(reader, "type is %.*s, expected float32 or float16",
                          tlm_shown_size(type), tlm_shown(type));
    }
    uint64_t padded = padded_count(count, TLM_ALIGNMENT / (stored->half ? 2 : 4));
    return tlm_read_finite(reader, "values", stored->half ? TLM_F16 : TLM_F32, padded,
                           &stored->values);
}

/* One row block whose positions are being checked. */
typedef struct block {
    const uint8_t *bytes;
    uint64_t size;   /* of the positions, in bytes */
    uint32_t height; /* rows with padding */
    uint32_t real;   /* rows without */
    uint64_t places; /* height * columns */
} block;

static const char BEYOND_ROWS[] = "tensor positions names a row beyond the matrix";
static const char BEYOND_BLOCK[] = "tensor positions names a place beyond its row block";

/* Count the values of a block, or say what is wrong. */
static const char *count_bitmap(const block *b, uint64_t *count)
{
    if (b->size * 8 != b->places) {
        return "tensor starts does not fit the bitmap";
    }
    uint64_t row = 0;
    for (uint64_t i = 0; i < b->size; i++) {
        unsigned bits = b->bytes[i];
        for (unsigned k = 0; k < 8; k++, bits >>= 1) {
            if ((bits & 1) != 0) {
                if (row >= b->real) {
                    return BEYOND_ROWS;
                }
                ++*count;
            }
            row = row + 1 == b->height ? 0 : row + 1;
        }
    }
    return NULL;
}

static const char *count_gaps(const block *b, unsigned width, uint64_t *count)
{
    unsigned greatest = (1u << width) - 1, per_byte = 8 / width;
    uint64_t place = 0;
    for (uint64_t i = 0; i < b->size; i++) {
        unsigned byte = b->bytes[i];
        for (unsigned k = 0; k < per_byte; k++, byte >>= width) {
            unsigned code = byte & greatest;
            place += code;
            if (code == greatest) {
                continue;
            }
            if (place >= b->places) {
                return BEYOND_BLOCK;
            }
            if (place % b->height >= b->real) {
                return BEYOND_ROWS;
            }
            place++;
            ++*count;
        }
    }
    return NULL;
}

static const char *count_values(const block *b, tlm_positions coding, uint64_t *count)
{
    *count = 0;
    return coding == TLM_BITMAP ? count_bitmap(b, count)
                                : count_gaps(b, coding == TLM_GAPS4 ? 4 : 8, count);
}

/* Check that starts rises from 0, and so little that nothing can overflow. */
static tlm_status check_starts(const tlm_reader *reader, const tlm_matrix *matrix,
                               const tlm_sparse *sparse)
{
    const uint32_t *starts = sparse->starts;
    bool good = starts[0] == 0 && starts[1] == 0;
    for (uint32_t i = 2; good && i < 2 * (sparse->row_blocks + 1); i++) {
        good = starts[i] >= starts[i - 2];
    }
    if (!good || starts[2 * sparse->row_blocks] > (uint64_t)matrix->out * matrix->in) {
        return tlm_refuse(reader,
                          "tensor starts does not rise from 0 to at most rows * columns");
    }
    uint32_t size = starts[2 * sparse->row_blocks + 1];
    if (size > 2 * tlm_padded_rows(matrix->out) * matrix->in) {
        return tlm_refuse(reader, "tensor starts gives positions %u bytes, too many", size);
    }
    return TLM_OK;
}

static tlm_status check_positions(const tlm_reader *reader, const tlm_matrix *matrix,
                                  const tlm_sparse *sparse)
{
    for (uint32_t i = 0; i < sparse->row_blocks; i++) {
        const uint32_t *start = sparse->starts + 2 * i;
        block b = {sparse->positions + start[1], start[3] - start[1],
                   tlm_block_height(matrix->out, i), matrix->out - i * TLM_BLOCK_ROWS, 0};
        b.places = (uint64_t)b.height * matrix->in;
        uint64_t count;
        const char *wrong = count_values(&b, sparse->coding, &count);
        if (wrong == NULL && count != start[2] - start[0]) {
            wrong = "tensors starts and positions differ in how many values there are";
        }
        if (wrong != NULL) {
            return tlm_refuse(reader, "%s, in row block %u", wrong, i);
        }
    }
    return TLM_OK;
}

tlm_status tlm_read_sparse(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    static const char *const codings[] = {"bitmap", "gaps4", "gaps8"};
    tlm_sparse *sparse = &matrix->u.sparse;
    tlm_json positions;
    tlm_status status = tlm_find_field(reader, spec, "positions", &positions);
    if (status != TLM_OK) {
        return status;
    }
    unsigned coding = 0;
    while (coding < 3 && !tlm_json_equals(positions, codings[coding])) {
        coding++;
    }
    if (coding == 3) {
        return tlm_refuse(reader, "positions is %.*s, expected bitmap, gaps4 or gaps8",
                          tlm_shown_size(positions), tlm_shown(positions));
    }
    sparse->coding = (tlm_positions)coding;
    sparse->row_blocks = matrix->out / TLM_BLOCK_ROWS + (matrix->out % TLM_BLOCK_ROWS != 0);
    const void *data;
    uint64_t count = tlm_round_up(2 * ((uint64_t)sparse->row_blocks + 1), TLM_ALIGNMENT / 4);
    status = tlm_read_tensor(reader, "starts", TLM_U32, count, &data);
    if (status != TLM_OK) {
        return status;
    }
    sparse->starts = data;
    status = check_starts(reader, matrix, sparse);
    if (status == TLM_OK) {
        uint64_t bytes = sparse->starts[2 * sparse->row_blocks + 1];
        status = tlm_read_tensor(reader, "positions", TLM_U8, padded_count(bytes, TLM_ALIGNMENT),
                                 &data);
    }
    if (status == TLM_OK) {
        sparse->positions = data;
        status = check_positions(reader, matrix, sparse);
    }
    if (status == TLM_OK) {
        sparse->count = sparse->starts[2 * sparse->row_blocks];
        status = read_stored(reader, spec, matrix, sparse->count, &sparse->stored);
    }
    return status;
}

static unsigned bits_set(unsigned byte)
{
    unsigned count = 0;
    for (; byte != 0; byte &= byte - 1) {
        count++;
    }
    return count;
}

/* Count the set bits, after checking that none is set from number `blocks` on. */
static tlm_status count_kept(const tlm_reader *reader, const uint8_t *bitmap, uint64_t bytes,
                             uint64_t blocks, uint64_t *kept)
{
    *kept = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        uint64_t inside = i * 8 >= blocks ? 0 : blocks - i * 8;
        unsigned allowed = inside >= 8 ? 0xffu : (1u << inside) - 1;
        if ((bitmap[i] & ~allowed) != 0) {
            return tlm_refuse(reader, "tensor blocks names a block beyond the %lu of the matrix",
                              tlm_shown_number(blocks));
        }
        *kept += bits_set(bitmap[i]);
    }
    return TLM_OK;
}

static bool is_side(uint32_t side)
{
    return side <= 64 && (side & (side - 1)) == 0;
}

tlm_status tlm_read_block_sparse(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_block_sparse *sparse = &matrix->u.block_sparse;
    uint32_t sides[2];
    size_t count;
    const void *data;
    tlm_status status = tlm_read_sizes(reader, spec, "block", 2, 2, sides, &count);
    if (status == TLM_OK && (!is_side(sides[0]) || !is_side(sides[1]))) {
        status = tlm_refuse(reader, "block is [%u, %u], expected two powers of two up to 64",
                            sides[0], sides[1]);
    }
    if (status != TLM_OK) {
        return status;
    }
    sparse->high = sides[0];
    sparse->wide = sides[1];
    sparse->grid_rows = (uint32_t)(tlm_round_up(matrix->out, sides[0]) / sides[0]);
    sparse->grid_columns = (uint32_t)(tlm_round_up(matrix->in, sides[1]) / sides[1]);
    uint64_t blocks = (uint64_t)sparse->grid_rows * sparse->grid_columns;
    uint64_t bytes = padded_count(tlm_round_up(blocks, 8) / 8, TLM_ALIGNMENT);
    status = tlm_read_tensor(reader, "blocks", TLM_U8, bytes, &data);
    if (status == TLM_OK) {
        sparse->bitmap = data;
        status = count_kept(reader, sparse->bitmap, bytes, blocks, &sparse->kept);
    }
    if (status == TLM_OK) {
        status = read_stored(reader, spec, matrix, sparse->kept * sides[0] * sides[1],
                             &sparse->stored);
    }
    return status;
}
