/* Products of a stored form with vectors: leaves by kernels, the others by what they are made of. */
#include "product.h"

#include <string.h>

/* Below this many multiplications a part, waking a thread costs more than it saves. */
#define LEAST_WORK ((uint64_t)1 << 17)
/* Calls that a product of a block-sparse matrix is cut into. */
#define MOST_CALLS 64u

void *tlm_scratch_take(tlm_scratch *scratch, size_t count, size_t size)
{
    void *taken = scratch->at;
    scratch->at += tlm_scratch_bytes(count, size);
    return taken;
}

static const tlm_matrix *child(const tlm_matrix *w, uint32_t number)
{
    switch (w->form) {
    case TLM_LOW_RANK: return number == 0 ? w->u.low_rank.right : w->u.low_rank.left;
    case TLM_ROW_BLOCKS: return &w->u.row_blocks.blocks[number];
    case TLM_GROUPED_ROWS: return &w->u.grouped_rows.blocks[number];
    case TLM_TENSOR_TRAIN: return &w->u.tensor_train.cores[number];
    default: return NULL;
    }
}

static uint32_t child_count(const tlm_matrix *w)
{
    switch (w->form) {
    case TLM_LOW_RANK: return 2;
    case TLM_ROW_BLOCKS: return w->u.row_blocks.count;
    case TLM_GROUPED_ROWS: return w->u.grouped_rows.count;
    case TLM_TENSOR_TRAIN: return w->u.tensor_train.count;
    default: return 0;
    }
}

bool tlm_reads_integers(const tlm_matrix *w)
{
    switch (w->form) {
    case TLM_QUANTIZED:
    case TLM_BINARY_CODES:
    case TLM_SPARSE_QUANTIZED:
    case TLM_BLOCK_SPARSE_QUANTIZED: return true;
    case TLM_LOW_RANK: return tlm_reads_integers(w->u.low_rank.right);
    case TLM_ROW_BLOCKS:
    case TLM_GROUPED_ROWS:
        for (uint32_t i = 0; i < child_count(w); i++)
            if (tlm_reads_integers(child(w, i)))
                return true;
        return false;
    default: return false;
    }
}

size_t tlm_prepare_room(uint32_t size, uint32_t count)
{
    return tlm_plus(tlm_scratch_bytes(count, sizeof(tlm_input)),
                    tlm_times(count, tlm_scratch_bytes(size, 1)));
}

tlm_input *tlm_prepare(const tlm_engine *engine, const tlm_matrix *w, const float *const *x,
                       uint32_t size, uint32_t count, tlm_scratch *scratch)
{
    tlm_input *in = tlm_scratch_take(scratch, count, sizeof *in);
    const bool rounds = tlm_reads_integers(w);
    for (uint32_t i = 0; i < count; i++) {
        in[i] = (tlm_input){.x = x[i], .size = size};
        if (rounds) {
            int8_t *q = tlm_scratch_take(scratch, size, 1);
            engine->kernels->round_input(x[i], size, q, &in[i].scale);
            in[i].q = q;
        }
    }
    return in;
}

static tlm_product *kernel_for(const tlm_kernels *kernels, tlm_form form)
{
    switch (form) {
    case TLM_QUANTIZED: return kernels->quantized;
    case TLM_CODEBOOK: return kernels->codebook;
    case TLM_BINARY_CODES: return kernels->binary_codes;
    case TLM_PRODUCT_CODES: return kernels->product_codes;
    case TLM_SPARSE:
    case TLM_SPARSE_QUANTIZED: return kernels->sparse;
    case TLM_BLOCK_SPARSE:
    case TLM_BLOCK_SPARSE_QUANTIZED: return kernels->block_sparse;
    default: return kernels->dense;
    }
}

/* A product of a leaf, cut by rows between threads. */
typedef struct leaf_work {
    const tlm_kernels *kernels;
    const tlm_matrix *w;
    const tlm_input *in;
    float *y;
    size_t stride;
    uint32_t count;
} leaf_work;

static void leaf_rows(const leaf_work *work, uint32_t begin, uint32_t end)
{
    tlm_many *many = work->w->form == TLM_QUANTIZED ? work->kernels->quantized_many
                     : work->w->form == TLM_DENSE   ? work->kernels->dense_many
                                                    : NULL;
    if (work->count > 1 && many != NULL) {
        many(work->w, work->in, work->count, work->y, work->stride, begin, end);
        return;
    }
    tlm_product *product = kernel_for(work->kernels, work->w->form);
    if (work->count == 1) {
        product(work->w, work->in, work->y, begin, end);
        return;
    }
    /* Block by block, so that a block stays in the cache for all vectors; but tables of product
       codes are made anew in every call, and blocks before the first row counted in every call. */
    const tlm_form form = work->w->form;
    uint32_t step = TLM_BLOCK_ROWS;
    if (form == TLM_PRODUCT_CODES)
        step = end - begin;
    if (form == TLM_BLOCK_SPARSE || form == TLM_BLOCK_SPARSE_QUANTIZED)
        step *= 1 + (end - begin) / (TLM_BLOCK_ROWS * MOST_CALLS);
    for (uint32_t row = begin; row < end; row += step) {
        const uint32_t stop = end - row < step ? end : row + step;
        for (uint32_t i = 0; i < work->count; i++)
            product(work->w, &work->in[i], work->y + i * work->stride, row, stop);
    }
}

static void leaf_part(void *argument, uint32_t number, uint32_t parts)
{
    const leaf_work *work = argument;
    const uint64_t blocks = ((uint64_t)work->w->out + TLM_BLOCK_ROWS - 1) / TLM_BLOCK_ROWS;
    const uint32_t begin = (uint32_t)(blocks * number / parts) * TLM_BLOCK_ROWS;
    const uint64_t end = blocks * (number + 1) / parts * TLM_BLOCK_ROWS;
    if (begin < end)
        leaf_rows(work, begin, end < work->w->out ? (uint32_t)end : work->w->out);
}

static void multiply_leaf(const tlm_engine *engine, leaf_work *work)
{
    const uint64_t amount = (uint64_t)work->w->out * work->w->in * work->count;
    if (tlm_shares(engine, amount))
        tlm_pool_run(engine->pool, leaf_part, work);
    else
        leaf_rows(work, 0, work->w->out);
}

bool tlm_has_single_rows(const tlm_matrix *w)
{
    return w->form == TLM_QUANTIZED || w->form == TLM_DENSE || w->form == TLM_CODEBOOK ||
           w->form == TLM_BINARY_CODES;
}

void tlm_multiply_block(const tlm_kernels *kernels, const tlm_matrix *w, const tlm_input *in,
                        uint32_t count, float *y, size_t stride, uint32_t begin, uint32_t end)
{
    const leaf_work work = {kernels, w, in, y, stride, count};
    leaf_rows(&work, begin, end);
}

bool tlm_shares(const tlm_engine *engine, uint64_t amount)
{
    return engine->pool != NULL && amount >= LEAST_WORK * tlm_pool_size(engine->pool);
}

void tlm_multiply_rows(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                       float *y, uint32_t begin, uint32_t end)
{
    kernel_for(engine->kernels, w->form)(w, in, y, begin, end);
}

size_t tlm_multiply_room(const tlm_matrix *w, uint32_t count)
{
    size_t most = 0;
    if (w->form == TLM_TENSOR_TRAIN)
        return tlm_train_room(w, count);
    if (w->form == TLM_PLACED_BLOCKS)
        return tlm_placed_room(w, count);
    for (uint32_t i = 0; i < child_count(w); i++) {
        most = tlm_most(most, tlm_multiply_room(child(w, i), count));
    }
    if (w->form == TLM_LOW_RANK) {
        const uint32_t rank = w->u.low_rank.left->in;
        most = tlm_plus(most, tlm_prepare_room(rank, count));
        most = tlm_plus(most, tlm_scratch_bytes(count, sizeof(float *)));
        most = tlm_plus(most, tlm_scratch_bytes(count, tlm_padded_floats(rank) * sizeof(float)));
    }
    if (w->form == TLM_GROUPED_ROWS)
        for (uint32_t i = 0; i < w->u.grouped_rows.count; i++)
            most = tlm_plus(most, tlm_scratch_bytes(
                                      count, sizeof(float) * tlm_padded_floats(
                                                                 child(w, i)->out)));
    return most;
}

static void multiply_low_rank(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                              uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    const tlm_matrix *left = w->u.low_rank.left;
    const size_t width = tlm_padded_floats(left->in);
    float *between = tlm_scratch_take(&scratch, count, width * sizeof *between);
    const float **vectors = tlm_scratch_take(&scratch, count, sizeof *vectors);
    tlm_multiply(engine, w->u.low_rank.right, in, count, between, width, scratch);
    for (uint32_t i = 0; i < count; i++)
        vectors[i] = between + i * width;
    tlm_apply(engine, left, vectors, count, y, stride, scratch);
}

static void multiply_grouped(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                             uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    const tlm_grouped_rows *m = &w->u.grouped_rows;
    float *parts[TLM_MAX_BLOCKS];
    size_t widths[TLM_MAX_BLOCKS];
    for (uint32_t b = 0; b < m->count; b++) {
        widths[b] = tlm_padded_floats(m->blocks[b].out);
        parts[b] = tlm_scratch_take(&scratch, count, widths[b] * sizeof(float));
        tlm_multiply(engine, &m->blocks[b], in, count, parts[b], widths[b], scratch);
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t row = 0; row < w->out; row++) {
            const uint8_t group = m->groups[row];
            y[i * stride + row] = parts[group][i * widths[group] + m->place[row]];
        }
}

void tlm_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                  uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    if (w->form == TLM_LOW_RANK) {
        multiply_low_rank(engine, w, in, count, y, stride, scratch);
    } else if (w->form == TLM_ROW_BLOCKS) {
        /* In order: what a block writes beyond its rows is then written over. */
        for (uint32_t b = 0; b < w->u.row_blocks.count; b++) {
            const tlm_matrix *block = &w->u.row_blocks.blocks[b];
            tlm_multiply(engine, block, in, count, y, stride, scratch);
            y += block->out;
        }
    } else if (w->form == TLM_GROUPED_ROWS) {
        multiply_grouped(engine, w, in, count, y, stride, scratch);
    } else if (w->form == TLM_PLACED_BLOCKS) {
        tlm_placed_multiply(engine, w, in, count, y, stride, scratch);
    } else if (w->form == TLM_TENSOR_TRAIN) {
        tlm_train_multiply(engine, w, in, count, y, stride, scratch);
    } else {
        leaf_work work = {engine->kernels, w, in, y, stride, count};
        multiply_leaf(engine, &work);
    }
}

void tlm_apply(const tlm_engine *engine, const tlm_matrix *w, const float *const *x,
               uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    const tlm_input *in = tlm_prepare(engine, w, x, w->in, count, &scratch);
    tlm_multiply(engine, w, in, count, y, stride, scratch);
}

size_t tlm_apply_room(const tlm_matrix *w, uint32_t count)
{
    return w == NULL ? 0
                     : tlm_plus(tlm_prepare_room(w->in, count), tlm_multiply_room(w, count));
}
