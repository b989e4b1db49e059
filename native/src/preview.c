/* The best words by a preview of the output layer, which of them need exact scores, and these. */
#include "preview.h"

#include <string.h>

#include "context.h"

/* In fast mode errors count as this many standard deviations of what they would be if they lay in
   random directions. */
#define DEVIATIONS 4.0f

/* What a bound takes of vectors of `size` numbers. */
static float part_of_bound(const tlm_preview *p, uint32_t size)
{
    const float part = DEVIATIONS / sqrtf((float)size);
    return p->fast && part < 1 ? part : 1;
}

/* What the last factor of the output matrix reads. */
static const float *last_vector(tlm_context *c, const float *vector)
{
    const tlm_output *o = &c->model->output;
    const tlm_matrix *w = o->weight;
    for (const tlm_matrix *step = o->projection; step != NULL || w->form == TLM_LOW_RANK; step = NULL) {
        if (step == NULL) {
            step = w->u.low_rank.right;
            w = w->u.low_rank.left;
        }
        float *next = tlm_scratch_take(&c->scratch, tlm_padded_floats(step->out), sizeof *next);
        tlm_apply(&c->engine, step, &vector, 1, next, 0, c->scratch);
        vector = next;
    }
    return vector;
}

/* to[k] = the rounded input; returns the square of what rounding lost. */
static double rounded(const tlm_input *in, float *to)
{
    double lost = 0;
    for (uint32_t k = 0; k < in->size; k++) {
        const float value = in->scale * (float)in->q[k];
        lost += (double)(in->x[k] - value) * (double)(in->x[k] - value);
        to[k] = value;
    }
    return lost;
}

static double square_of(const float *x, uint32_t size)
{
    double sum = 0;
    for (uint32_t k = 0; k < size; k++)
        sum += (double)x[k] * (double)x[k];
    return sum;
}

void tlm_preview_read(tlm_context *c, const float *vector)
{
    tlm_preview *p = &c->preview;
    const uint32_t n = p->codes.in, r = p->shares.in;
    const float *x = last_vector(c, vector);
    float *seen = tlm_scratch_take(&c->scratch, tlm_padded_floats(n), sizeof *seen);
    float *u = tlm_scratch_take(&c->scratch, tlm_padded_floats(r), sizeof *u);
    const tlm_input *in = tlm_prepare(&c->engine, &p->codes, &x, n, 1, &c->scratch);
    const float lost = tlm_length(rounded(in, seen));
    const float *g = p->integers ? seen : x;
    tlm_apply(&c->engine, &p->directions, &g, 1, u, 0, c->scratch);
    const double square = square_of(g, n), in_directions = square_of(u, r);
    const float *shares = u;
    const tlm_input *in_shares = tlm_prepare(&c->engine, &p->shares, &shares, r, 1, &c->scratch);
    const float lost_share = tlm_length(rounded(in_shares, seen));
    tlm_multiply(&c->engine, &p->codes, in, 1, p->scores, 0, c->scratch);
    tlm_multiply(&c->engine, &p->shares, in_shares, 1, p->most, 0, c->scratch);
    p->input = in;
    memset(p->exact, 0, p->rows / TLM_BLOCK_ROWS);

    const float part = part_of_bound(p, n), part_of_shares = part_of_bound(p, r);
    /* 1e-5: sums of floats, and directions that are not quite orthonormal; 4e-7: the bias is added
       to sums that differ, and what it is added to is rounded. */
    const float across = part * tlm_length(square - in_directions + 1e-6 * square);
    const float along = part_of_shares * tlm_length(in_directions);
    const float all = part_of_shares * p->largest_share * lost_share +
                      (p->integers ? 0 : part * p->largest * lost) +
                      1e-5f * p->largest * tlm_length(square) + 4e-7f * p->largest_bias;
    tlm_preview_bound(p, across, along, all);
}

/* Make the scores of 64 rows exact. */
static void make_exact(tlm_context *c, const tlm_matrix *block, uint32_t start, uint32_t row)
{
    tlm_preview *p = &c->preview;
    const uint32_t most = row + TLM_BLOCK_ROWS, end = most < block->out ? most : block->out;
    float *scores = p->scores + start;
    tlm_multiply_rows(&c->engine, block, p->input, scores, row, end);
    for (uint32_t i = row; i < end; i++)
        scores[i] += p->bias[start + i];
    for (uint32_t i = end; i < most; i++)
        scores[i] = -INFINITY;
    p->exact[(start + row) / TLM_BLOCK_ROWS] = 1;
}

/* Make the scores of the 64 rows around `at` exact, unless they are. */
static void make_exact_at(tlm_context *c, uint32_t at)
{
    uint32_t start = 0, number = 0;
    if (c->preview.exact[at / TLM_BLOCK_ROWS])
        return;
    for (;; number++) {
        const tlm_matrix *block = tlm_preview_block(&c->preview, number);
        const uint32_t rows = tlm_filled_up(block->out);
        if (at - start < rows) {
            make_exact(c, block, start, (at - start) / TLM_BLOCK_ROWS * TLM_BLOCK_ROWS);
            return;
        }
        start += rows;
    }
}

float tlm_preview_score(tlm_context *c, uint32_t word)
{
    const uint32_t row = tlm_preview_row(&c->preview, word);
    make_exact_at(c, row);
    return c->preview.scores[row];
}

/* Offer 64 words by what `scores` says. */
static void offer_block(const tlm_preview *p, uint32_t first, tlm_best *best)
{
    for (uint32_t i = first; i < first + TLM_BLOCK_ROWS; i++)
        if (p->words[i] != TLM_NO_ROW && !tlm_best_beats(best, p->scores[i]))
            tlm_best_offer(best, p->words[i], p->scores[i]);
}

/* First the best by the preview, so that the k-th best exact score is nearly known; then all
   blocks that may hold something as good. */
void tlm_preview_offer(tlm_context *c, tlm_best *best)
{
    tlm_preview *p = &c->preview;
    const tlm_kernels *kernels = c->engine.kernels;
    for (uint32_t i = 0; i < p->rows; i += TLM_BLOCK_ROWS)
        if (!tlm_best_beats(best, kernels->max(p->scores + i, TLM_BLOCK_ROWS)))
            offer_block(p, i, best);
    for (uint32_t i = 0; i < best->count; i++)
        make_exact_at(c, tlm_preview_row(p, best->heap[i].token));
    best->count = 0;
    for (uint32_t i = 0; i < p->rows; i += TLM_BLOCK_ROWS)
        if (p->exact[i / TLM_BLOCK_ROWS])
            offer_block(p, i, best);
    for (uint32_t i = 0; i < p->rows; i += TLM_BLOCK_ROWS)
        if (!p->exact[i / TLM_BLOCK_ROWS] &&
            !tlm_best_beats(best, kernels->max(p->most + i, TLM_BLOCK_ROWS))) {
            make_exact_at(c, i);
            offer_block(p, i, best);
        }
}

float tlm_preview_log_sum(const tlm_context *c)
{
    const tlm_preview *p = &c->preview;
    const float most = c->engine.kernels->max(p->scores, p->rows);
    return most + logf(c->engine.kernels->sum_exp(p->scores, p->rows, most));
}

uint32_t tlm_context_preview(const tlm_context *context)
{
    return context == NULL ? 0 : context->preview.bits;
}
