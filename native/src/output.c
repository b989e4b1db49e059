/* The output layer: log-probabilities of all tokens, or of given ones. */
#include <math.h>
#include <string.h>

#include "softmax.h"

/* y[i * stride ..] = w x_i. */
static void multiply(tlm_context *c, const tlm_matrix *w, const float *const *x, uint32_t count,
                     float *y, size_t stride)
{
    tlm_apply(&c->engine, w, x, count, y, stride, c->scratch);
}

/* log of the sum of exp over `size` scores. */
static float log_sum(const tlm_kernels *k, const float *scores, uint32_t size)
{
    const float most = k->max(scores, size);
    return most + logf(k->sum_exp(scores, size, most));
}

/* What the output layer's matrix reads: the vectors, or their projections. */
static const float *const *projected(tlm_context *c, uint32_t count, const float *const *vectors)
{
    const tlm_output *output = &c->model->output;
    if (output->projection == NULL)
        return vectors;
    multiply(c, output->projection, vectors, count, c->first, c->width);
    for (uint32_t i = 0; i < count; i++)
        c->more[i] = c->first + i * c->width;
    return c->more;
}

/* Normalized scores of the head: the most frequent words, then the clusters. */
static void head_scores(tlm_context *c, uint32_t count, const float *const *vectors)
{
    const tlm_output *output = &c->model->output;
    const uint32_t size = output->head->out;
    const tlm_kernels *k = c->engine.kernels;
    multiply(c, output->head, vectors, count, c->scores, c->score_width);
    for (uint32_t i = 0; i < count; i++) {
        float *scores = c->scores + i * c->score_width;
        const float most = tlm_add_bias(k, &output->bias, 0, scores, scores, size);
        k->subtract(scores, size, most + logf(k->sum_exp(scores, size, most)));
    }
}

/* Normalized scores of a cluster's words for one vector, at `to`. */
static void tail_scores(tlm_context *c, const tlm_tail *tail, const float *vector, float *to)
{
    const tlm_kernels *k = c->engine.kernels;
    multiply(c, tail->down, &vector, 1, c->first, c->width);
    const float *inner = c->first;
    multiply(c, tail->words, &inner, 1, to, c->score_width);
    k->subtract(to, tail->words->out, log_sum(k, to, tail->words->out));
}

/* All words of one vector, whose head is in `scores`, to `out` in order of id. */
static void spread(tlm_context *c, const float *scores, const float *vector, float *out)
{
    const tlm_model *model = c->model;
    const uint32_t cutoff = model->config.cutoffs[0], tails = model->config.tails;
    float clusters[TLM_MAX_TAILS];
    tlm_scratch saved = c->scratch;
    float *ranked = tlm_scratch_take(&c->scratch, c->score_width, sizeof *ranked);
    memcpy(clusters, scores + cutoff, tails * sizeof *clusters);
    memcpy(ranked, scores, cutoff * sizeof *ranked);
    uint32_t start = cutoff;
    for (uint32_t t = 0; t < tails; t++) {
        const tlm_tail *tail = &model->output.tails[t];
        tail_scores(c, tail, vector, ranked + start);
        c->engine.kernels->subtract(ranked + start, tail->words->out, -clusters[t]);
        start += tail->words->out;
    }
    for (uint32_t rank = 0; rank < model->vocabulary_size; rank++)
        out[tlm_number(model->output.order.ids, rank)] = ranked[rank];
    c->scratch = saved;
}

void tlm_all_scores(tlm_context *c, uint32_t count, const float *const *vectors, float *out,
                    size_t stride)
{
    if (c->model->config.adaptive) {
        head_scores(c, count, vectors);
        for (uint32_t i = 0; i < count; i++)
            spread(c, c->scores + i * c->score_width, vectors[i], out + i * stride);
        return;
    }
    tlm_softmax_all(c, count, projected(c, count, vectors), out, stride);
}

/* The log-probability of one word by its rank; the head is in `scores`. */
static float ranked_score(tlm_context *c, const float *scores, const float *vector, uint32_t rank)
{
    const tlm_model *model = c->model;
    const uint32_t cutoff = model->config.cutoffs[0];
    if (rank < cutoff)
        return scores[rank];
    uint32_t start = cutoff, t = 0;
    while (rank - start >= model->output.tails[t].words->out)
        start += model->output.tails[t++].words->out;
    tlm_scratch saved = c->scratch;
    float *words = tlm_scratch_take(&c->scratch, c->score_width, sizeof *words);
    tail_scores(c, &model->output.tails[t], vector, words);
    c->scratch = saved;
    return scores[cutoff + t] + words[rank - start];
}

void tlm_target_scores(tlm_context *c, uint32_t count, const float *const *vectors,
                       const uint32_t *targets, float *out)
{
    const tlm_output *output = &c->model->output;
    if (!c->model->config.adaptive) {
        tlm_softmax_targets(c, count, projected(c, count, vectors), targets, out);
        return;
    }
    head_scores(c, count, vectors);
    for (uint32_t i = 0; i < count; i++)
        out[i] = ranked_score(c, c->scores + i * c->score_width, vectors[i],
                              tlm_number(output->order.places, targets[i]));
}

size_t tlm_output_room(const tlm_model *model, uint32_t batch)
{
    const tlm_output *o = &model->output;
    size_t most = tlm_most(tlm_apply_room(o->projection, batch), tlm_softmax_room(o->weight, batch));
    most = tlm_most(most, tlm_apply_room(o->head, batch));
    size_t tails = 0;
    for (uint32_t t = 0; t < model->config.tails; t++) {
        tails = tlm_most(tails, tlm_apply_room(o->tails[t].down, 1));
        tails = tlm_most(tails, tlm_apply_room(o->tails[t].words, 1));
    }
    if (model->config.tails != 0)
        tails = tlm_plus(tails, tlm_scratch_bytes(
                                    tlm_padded_floats((size_t)model->vocabulary_size + TLM_MAX_TAILS),
                                    sizeof(float)));
    return tlm_most(most, tails);
}
