/* Single rows of a matrix: word vectors. */
#include "kernels_inside.h"
#include "product.h"

void tlm_combine(const tlm_matrix *w, const float *weights, float *out, tlm_scratch scratch)
{
    switch (w->form) {
    case TLM_LOW_RANK: {
        const uint32_t rank = w->u.low_rank.left->in;
        float *inner = tlm_scratch_take(&scratch, tlm_padded_floats(rank), sizeof *inner);
        memset(inner, 0, rank * sizeof *inner);
        tlm_combine(w->u.low_rank.left, weights, inner, scratch);
        tlm_combine(w->u.low_rank.right, inner, out, scratch);
        break;
    }
    case TLM_ROW_BLOCKS:
        for (uint32_t b = 0; b < w->u.row_blocks.count; b++) {
            tlm_combine(&w->u.row_blocks.blocks[b], weights, out, scratch);
            weights += w->u.row_blocks.blocks[b].out;
        }
        break;
    case TLM_GROUPED_ROWS: {
        const tlm_grouped_rows *m = &w->u.grouped_rows;
        float *own[TLM_MAX_BLOCKS]; /* the weights of each block's rows */
        for (uint32_t b = 0; b < m->count; b++)
            own[b] = tlm_scratch_take(&scratch, m->blocks[b].out, sizeof(float));
        for (uint32_t r = 0; r < w->out; r++)
            own[m->groups[r]][m->place[r]] = weights[r];
        for (uint32_t b = 0; b < m->count; b++)
            tlm_combine(&m->blocks[b], own[b], out, scratch);
        break;
    }
    case TLM_TENSOR_TRAIN: {
        float *row = tlm_scratch_take(&scratch, tlm_padded_floats(w->in), sizeof *row);
        for (uint32_t r = 0; r < w->out; r++) {
            tlm_look_up(w, r, row, scratch);
            for (uint32_t k = 0; k < w->in; k++)
                out[k] += weights[r] * row[k];
        }
        break;
    }
    case TLM_PLACED_BLOCKS: tlm_placed_combine(w, weights, out, scratch); break;
    default: tlm_combine_leaf(w, weights, out); break;
    }
}

size_t tlm_combine_room(const tlm_matrix *w)
{
    size_t most = 0;
    switch (w->form) {
    case TLM_LOW_RANK:
        most = tlm_most(tlm_combine_room(w->u.low_rank.left),
                        tlm_combine_room(w->u.low_rank.right));
        return tlm_plus(most, tlm_scratch_bytes(tlm_padded_floats(w->u.low_rank.left->in),
                                                sizeof(float)));
    case TLM_ROW_BLOCKS:
        for (uint32_t b = 0; b < w->u.row_blocks.count; b++)
            most = tlm_most(most, tlm_combine_room(&w->u.row_blocks.blocks[b]));
        return most;
    case TLM_GROUPED_ROWS:
        for (uint32_t b = 0; b < w->u.grouped_rows.count; b++)
            most = tlm_most(most, tlm_combine_room(&w->u.grouped_rows.blocks[b]));
        for (uint32_t b = 0; b < w->u.grouped_rows.count; b++)
            most = tlm_plus(most, tlm_scratch_bytes(w->u.grouped_rows.blocks[b].out, sizeof(float)));
        return most;
    case TLM_PLACED_BLOCKS: return tlm_placed_combine_room(w);
    case TLM_TENSOR_TRAIN:
        return tlm_plus(tlm_look_up_room(w),
                        tlm_scratch_bytes(tlm_padded_floats(w->in), sizeof(float)));
    default: return 0;
    }
}

size_t tlm_look_up_room(const tlm_matrix *w)
{
    size_t most = 0;
    if (w->form == TLM_TENSOR_TRAIN)
        return tlm_train_look_up_room(w);
    if (w->form == TLM_PLACED_BLOCKS)
        return tlm_placed_look_up_room(w);
    if (w->form == TLM_LOW_RANK) {
        most = tlm_most(tlm_look_up_room(w->u.low_rank.left),
                        tlm_combine_room(w->u.low_rank.right));
        return tlm_plus(most, tlm_scratch_bytes(tlm_padded_floats(w->u.low_rank.left->in),
                                                sizeof(float)));
    }
    if (w->form == TLM_ROW_BLOCKS)
        for (uint32_t b = 0; b < w->u.row_blocks.count; b++)
            most = tlm_most(most, tlm_look_up_room(&w->u.row_blocks.blocks[b]));
    if (w->form == TLM_GROUPED_ROWS)
        for (uint32_t b = 0; b < w->u.grouped_rows.count; b++)
            most = tlm_most(most, tlm_look_up_room(&w->u.grouped_rows.blocks[b]));
    return most;
}

static void look_up_dense(const tlm_matrix *w, uint32_t row, float *out)
{
    const size_t at = (size_t)row * w->in;
    if (!w->u.dense.half) {
        memcpy(out, (const float *)w->u.dense.values + at, w->in * sizeof *out);
        return;
    }
    const uint16_t *values = (const uint16_t *)w->u.dense.values + at;
    for (uint32_t k = 0; k < w->in; k++)
        out[k] = tlm_from_half(values[k]);
}

void tlm_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch)
{
    switch (w->form) {
    case TLM_DENSE: look_up_dense(w, row, out); break;
    case TLM_LOW_RANK: {
        const tlm_matrix *left = w->u.low_rank.left;
        float *inner = tlm_scratch_take(&scratch, tlm_padded_floats(left->in), sizeof *inner);
        tlm_look_up(left, row, inner, scratch);
        memset(out, 0, w->in * sizeof *out);
        tlm_combine(w->u.low_rank.right, inner, out, scratch);
        break;
    }
    case TLM_ROW_BLOCKS: {
        const tlm_matrix *block = w->u.row_blocks.blocks;
        for (; row >= block->out; block++)
            row -= block->out;
        tlm_look_up(block, row, out, scratch);
        break;
    }
    case TLM_GROUPED_ROWS: {
        const tlm_grouped_rows *m = &w->u.grouped_rows;
        tlm_look_up(&m->blocks[m->groups[row]], m->place[row], out, scratch);
        break;
    }
    case TLM_PLACED_BLOCKS: tlm_placed_look_up(w, row, out, scratch); break;
    case TLM_TENSOR_TRAIN: tlm_train_look_up(w, row, out, scratch); break;
    case TLM_SPARSE:
    case TLM_SPARSE_QUANTIZED:
    case TLM_BLOCK_SPARSE:
    case TLM_BLOCK_SPARSE_QUANTIZED: tlm_look_up_sparse(w, row, out); break;
    default: tlm_look_up_coded(w, row, out); break;
    }
}
