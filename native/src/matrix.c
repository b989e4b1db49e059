/* Which form a spec names, and the forms that are made of others. */
#include "matrix.h"

#include <stdio.h>

#include "reader.h"
#include "work.h"

#define MAX_PADDING 2u

typedef tlm_status (*form_reader)(tlm_reader *, tlm_json, tlm_matrix *);

static const struct {
    const char *name;
    form_reader read;
} FORMS[TLM_FORM_COUNT] = {
    [TLM_DENSE] = {"dense", tlm_read_dense},
    [TLM_LOW_RANK] = {"low_rank", tlm_read_low_rank},
    [TLM_QUANTIZED] = {"quantized", tlm_read_quantized},
    [TLM_CODEBOOK] = {"codebook", tlm_read_codebook},
    [TLM_BINARY_CODES] = {"binary_codes", tlm_read_binary_codes},
    [TLM_PRODUCT_CODES] = {"product_codes", tlm_read_product_codes},
    [TLM_SPARSE] = {"sparse", tlm_read_sparse},
    [TLM_SPARSE_QUANTIZED] = {"sparse_quantized", tlm_read_sparse},
    [TLM_BLOCK_SPARSE] = {"block_sparse", tlm_read_block_sparse},
    [TLM_BLOCK_SPARSE_QUANTIZED] = {"block_sparse_quantized", tlm_read_block_sparse},
    [TLM_ROW_BLOCKS] = {"row_blocks", tlm_read_row_blocks},
    [TLM_GROUPED_ROWS] = {"grouped_rows", tlm_read_grouped_rows},
    [TLM_PLACED_BLOCKS] = {"placed_blocks", tlm_read_placed_blocks},
    [TLM_TENSOR_TRAIN] = {"tensor_train", tlm_read_tensor_train},
};

const char *tlm_form_name(tlm_form form)
{
    return (unsigned)form < TLM_FORM_COUNT ? FORMS[form].name : "unknown";
}

tlm_status tlm_read_matrix(tlm_reader *reader, tlm_json spec, tlm_matrix *out)
{
    tlm_json kind;
    uint32_t shape[2];
    size_t sides;
    if (!tlm_json_is_object(spec)) {
        return tlm_refuse(reader, "its description is %.*s, not a JSON object",
                          tlm_shown_size(spec), tlm_shown(spec));
    }
    tlm_status status = tlm_find_field(reader, spec, "kind", &kind);
    if (status != TLM_OK) {
        return status;
    }
    unsigned form = 0;
    while (form < TLM_FORM_COUNT && !tlm_json_equals(kind, FORMS[form].name)) {
        form++;
    }
    if (form == TLM_FORM_COUNT) {
        return tlm_fail(reader->fault, TLM_ERROR_VERSION,
                        "%s: kind is %.*s, an unknown stored form; a newer terselm may know it",
                        reader->name, tlm_shown_size(kind), tlm_shown(kind));
    }
    status = tlm_read_sizes(reader, spec, "shape", 2, 2, shape, &sides);
    if (status != TLM_OK) {
        return status;
    }
    out->form = (tlm_form)form;
    out->out = shape[0];
    out->in = shape[1];
    return FORMS[form].read(reader, spec, out);
}

tlm_status tlm_read_child(tlm_reader *reader, tlm_json spec, const char *key, tlm_matrix *out)
{
    tlm_json child;
    tlm_status status = tlm_count_search(reader, spec);
    if (status == TLM_OK) {
        status = tlm_find_field(reader, spec, key, &child);
    }
    if (status != TLM_OK) {
        return status;
    }
    if (child.begin == NULL) {
        return tlm_refuse(reader, "%s is not described", key);
    }
    size_t before = strlen(reader->name);
    size_t room = sizeof reader->name - before;
    if (reader->depth == TLM_MAX_FORM_DEPTH || strlen(key) + 1 >= room) {
        return tlm_refuse(reader, "%s: forms inside forms are more than %u deep", key,
                          TLM_MAX_FORM_DEPTH);
    }
    snprintf(reader->name + before, room, ".%s", key);
    reader->depth++;
    status = tlm_read_matrix(reader, child, out);
    reader->depth--;
    reader->name[before] = '\0';
    return status;
}

tlm_status tlm_take_matrices(tlm_reader *reader, size_t count, tlm_matrix **out)
{
    *out = tlm_arena_take(reader->arena, count, sizeof **out);
    if (*out == NULL) {
        return tlm_refuse(reader, "has more parts than are described");
    }
    return TLM_OK;
}

tlm_status tlm_read_low_rank(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_matrix *factors;
    uint32_t rank;
    tlm_status status = tlm_read_integer(reader, spec, "rank", 1, TLM_MAX_SIDE, &rank);
    if (status == TLM_OK) {
        status = tlm_take_matrices(reader, 2, &factors);
    }
    if (status == TLM_OK) {
        status = tlm_read_child(reader, spec, "left", &factors[0]);
    }
    if (status == TLM_OK) {
        status = tlm_read_child(reader, spec, "right", &factors[1]);
    }
    if (status != TLM_OK) {
        return status;
    }
    const tlm_matrix *left = &factors[0], *right = &factors[1];
    if (left->in != rank || right->out != rank) {
        return tlm_refuse(reader, "rank is %u, left has %u columns and right %u rows", rank,
                          left->in, right->out);
    }
    if (left->out != matrix->out || right->in != matrix->in) {
        return tlm_refuse(reader, "shape is [%u, %u], left and right make [%u, %u]", matrix->out,
                          matrix->in, left->out, right->in);
    }
    if (rank > matrix->out && rank > matrix->in) {
        return tlm_refuse(reader, "rank is %u, more than shape has rows or columns", rank);
    }
    matrix->u.low_rank.left = left;
    matrix->u.low_rank.right = right;
    return TLM_OK;
}

/* Read the digits of a side: factors that make at least the side and at most twice it. */
static tlm_status read_digits(const tlm_reader *reader, tlm_json spec, const char *key,
                              uint32_t side, uint32_t *sizes, size_t *count)
{
    tlm_status status = tlm_read_sizes(reader, spec, key, 1, TLM_MAX_CORES, sizes, count);
    if (status != TLM_OK) {
        return status;
    }
    uint64_t product = 1;
    for (size_t i = 0; i < *count && product <= MAX_PADDING * (uint64_t)side; i++) {
        product *= sizes[i];
    }
    if (product < side || product > MAX_PADDING * (uint64_t)side) {
        return tlm_refuse(reader, "%s makes %lu or more, expected %u to %lu", key,
                          tlm_shown_number(product), side,
                          tlm_shown_number(MAX_PADDING * (uint64_t)side));
    }
    return TLM_OK;
}

/* Check that core m fits its digits and the ranks on both sides. */
static tlm_status check_core(const tlm_reader *reader, const tlm_tensor_train *train, uint32_t m)
{
    const tlm_matrix *core = &train->cores[m];
    uint64_t rows = (uint64_t)train->ranks[m] * train->row_shape[m];
    uint64_t columns = (uint64_t)train->column_shape[m] * train->ranks[m + 1];
    if (core->out != rows || core->in != columns) {
        return tlm_refuse(reader, "core%u is [%u, %u], ranks and shapes need [%lu, %lu]", m,
                          core->out, core->in, tlm_shown_number(rows),
                          tlm_shown_number(columns));
    }
    return TLM_OK;
}

/* A train can make hours of work of a few numbers. */
static tlm_status check_work(tlm_reader *reader, const tlm_matrix *matrix)
{
    uint64_t held = tlm_train_held(&matrix->u.tensor_train);
    uint64_t work = tlm_product_work(matrix), left = TLM_MOST_WORK - reader->work;
    if (held > TLM_MOST_HELD) {
        return tlm_refuse(reader, "ranks and shapes make %lu numbers between cores, more than %lu",
                          tlm_shown_number(held), tlm_shown_number(TLM_MOST_HELD));
    }
    if (work > left) {
        return tlm_refuse(reader, "ranks and shapes need %lu multiplications, more than %lu",
                          tlm_shown_number(work), tlm_shown_number(left));
    }
    reader->work += work;
    return TLM_OK;
}

tlm_status tlm_read_tensor_train(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    uint32_t rows[TLM_MAX_CORES], columns[TLM_MAX_CORES], ranks[TLM_MAX_CORES + 1] = {1};
    size_t count, others, inner;
    tlm_status status = read_digits(reader, spec, "row_shape", matrix->out, rows, &count);
    if (status == TLM_OK) {
        status = read_digits(reader, spec, "column_shape", matrix->in, columns, &others);
    }
    if (status == TLM_OK) {
        status = tlm_read_sizes(reader, spec, "ranks", 0, TLM_MAX_CORES - 1, ranks + 1, &inner);
    }
    if (status != TLM_OK) {
        return status;
    }
    if (others != count || inner + 1 != count) {
        return tlm_refuse(reader, "row_shape has %lu factors, column_shape %lu and ranks %lu",
                          tlm_shown_number(count), tlm_shown_number(others), tlm_shown_number(inner));
    }
    ranks[count] = 1;
    tlm_matrix *cores;
    status = tlm_take_matrices(reader, count, &cores);
    uint32_t *sizes = tlm_arena_take(reader->arena, 3 * count + 1, sizeof *sizes);
    if (status != TLM_OK || sizes == NULL) {
        return tlm_refuse(reader, "has more cores than are described");
    }
    memcpy(sizes, rows, count * sizeof *sizes);
    memcpy(sizes + count, columns, count * sizeof *sizes);
    memcpy(sizes + 2 * count, ranks, (count + 1) * sizeof *sizes);
    tlm_tensor_train *train = &matrix->u.tensor_train;
    *train = (tlm_tensor_train){cores, sizes, sizes + count, sizes + 2 * count, (uint32_t)count};
    for (uint32_t m = 0; status == TLM_OK && m < train->count; m++) {
        char key[16];
        snprintf(key, sizeof key, "core%u", (unsigned)m);
        status = tlm_read_child(reader, spec, key, &cores[m]);
        if (status == TLM_OK) {
            status = check_core(reader, train, m);
        }
    }
    return status == TLM_OK ? check_work(reader, matrix) : status;
}
