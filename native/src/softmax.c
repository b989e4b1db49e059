/* Log-probabilities of a softmax, block by block of words: what a block's products are, their bias,
   greatest and sum of exponentials is worked out while it is in the first caches. */
#include "softmax.h"

#include <math.h>

/* Words of a block, and vectors whose products are made at once. */
#define BLOCK 1024u
#define VECTORS 64u

/* Of the exponentials of a block's scores: their sum is sum * exp(shift). */
typedef struct block_sum {
    float shift;
    float sum;
} block_sum;

typedef struct work {
    tlm_context *c;
    const tlm_matrix *weight;
    const tlm_input *in; /* NULL: the products are in c->scores */
    uint32_t count;
    uint32_t blocks;
    block_sum *sums;         /* [count][blocks] */
    float *out;              /* [count][stride], or NULL */
    size_t stride;
    const uint32_t *targets; /* [count], or NULL */
    float *chosen;           /* [count]: scores of the targets */
} work;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Where row 0 of the products would be, vectors `stride` apart: in the rows of c->scores, or else
   the blocks of a thread, from `first` on, lie in the space that its words have there; each then
   goes over most of the one before, so that they stay in the caches. */
static float *place_of(const work *w, uint32_t first, size_t *stride)
{
    const tlm_context *c = w->c;
    *stride = c->score_width;
    if (w->in == NULL || w->out == c->scores)
        return c->scores;
    if (*stride - first > BLOCK)
        *stride = BLOCK;
    else
        *stride -= first;
    return c->scores + (size_t)first * (w->count - 1);
}

static void take_block(const work *w, uint32_t i, uint32_t block, float *products, uint32_t size)
{
    const tlm_kernels *k = w->c->engine.kernels;
    const tlm_bias *bias = &w->c->model->output.bias;
    const uint32_t begin = block * BLOCK;
    float *to = w->out != NULL ? w->out + i * w->stride + begin : products;
    block_sum *sum = &w->sums[(size_t)i * w->blocks + block];
    const float most = tlm_add_bias(k, bias, begin, to, products, size);
    sum->shift = most == -INFINITY ? 0 : most; /* nothing or NaN, which the sum shows */
    sum->sum = k->sum_exp(to, size, sum->shift);
    if (w->targets != NULL && w->targets[i] >= begin && w->targets[i] - begin < size)
        w->chosen[i] = to[w->targets[i] - begin];
}

static void blocks_part(void *argument, uint32_t number, uint32_t parts)
{
    const work *w = argument;
    const uint32_t first = (uint32_t)((uint64_t)w->blocks * number / parts);
    const uint32_t last = (uint32_t)((uint64_t)w->blocks * (number + 1) / parts);
    if (first == last)
        return;
    size_t stride;
    float *products = place_of(w, first * BLOCK, &stride);
    for (uint32_t block = first; block < last; block++) {
        const uint32_t begin = block * BLOCK, end = begin + least(BLOCK, w->weight->out - begin);
        for (uint32_t i = 0, some; i < w->count; i += some) {
            some = least(VECTORS, w->count - i);
            if (w->in != NULL)
                tlm_multiply_block(w->c->engine.kernels, w->weight, w->in + i, some,
                                   products + i * stride, stride, begin, end);
            for (uint32_t j = i; j < i + some; j++)
                take_block(w, j, block, products + j * stride + begin, end - begin);
        }
    }
}

/* The logarithm of the sum of a vector's exponentials. */
static float log_sum(const block_sum *sums, uint32_t blocks)
{
    float most = sums[0].shift;
    double all = 0;
    for (uint32_t b = 1; b < blocks; b++)
        most = fmaxf(most, sums[b].shift);
    for (uint32_t b = 0; b < blocks; b++)
        all += (double)(sums[b].sum * expf(sums[b].shift - most));
    return most + logf((float)all);
}

static void finish_part(void *argument, uint32_t number, uint32_t parts)
{
    const work *w = argument;
    const uint32_t first = (uint32_t)((uint64_t)w->count * number / parts);
    const uint32_t last = (uint32_t)((uint64_t)w->count * (number + 1) / parts);
    for (uint32_t i = first; i < last; i++) {
        const float sum = log_sum(w->sums + (size_t)i * w->blocks, w->blocks);
        if (w->out != NULL)
            w->c->engine.kernels->subtract(w->out + i * w->stride, w->weight->out, sum);
        if (w->targets != NULL)
            w->chosen[i] -= sum;
    }
}

static uint32_t blocks_of(const tlm_matrix *weight)
{
    return weight->out / BLOCK + (weight->out % BLOCK != 0);
}

static void run(tlm_context *c, const float *const *vectors, work *w)
{
    tlm_scratch scratch = c->scratch;
    w->c = c;
    w->weight = c->model->output.weight;
    w->blocks = blocks_of(w->weight);
    w->sums = tlm_scratch_take(&scratch, (size_t)w->count * w->blocks, sizeof *w->sums);
    const uint64_t amount = (uint64_t)w->weight->out * w->weight->in * w->count;
    if (tlm_has_single_rows(w->weight))
        w->in = tlm_prepare(&c->engine, w->weight, vectors, w->weight->in, w->count, &scratch);
    else
        tlm_apply(&c->engine, w->weight, vectors, w->count, c->scores, c->score_width, scratch);
    if (tlm_shares(&c->engine, amount)) {
        tlm_pool_run(c->engine.pool, blocks_part, w);
        tlm_pool_run(c->engine.pool, finish_part, w);
    } else {
        blocks_part(w, 0, 1);
        finish_part(w, 0, 1);
    }
}

void tlm_softmax_all(tlm_context *c, uint32_t count, const float *const *vectors, float *out,
                     size_t stride)
{
    work w = {.count = count, .out = out, .stride = stride};
    run(c, vectors, &w);
}

void tlm_softmax_targets(tlm_context *c, uint32_t count, const float *const *vectors,
                         const uint32_t *targets, float *out)
{
    work w = {.count = count, .targets = targets, .chosen = out};
    run(c, vectors, &w);
}

size_t tlm_softmax_room(const tlm_matrix *weight, uint32_t batch)
{
    return weight == NULL ? 0
                          : tlm_plus(tlm_apply_room(weight, batch),
                                     tlm_scratch_bytes((size_t)batch * blocks_of(weight),
                                                       sizeof(block_sum)));
}
