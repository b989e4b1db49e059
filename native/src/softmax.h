/* Log-probabilities of an output layer that is one matrix. */
#ifndef TLM_SOFTMAX_H
#define TLM_SOFTMAX_H

#include "context.h"

/* Log-probabilities of all words for `count` vectors of weight->in numbers, at out + i * stride;
   `out` may be c->scores with c->score_width. */
void tlm_softmax_all(tlm_context *c, uint32_t count, const float *const *vectors, float *out,
                     size_t stride);

/* out[i] = that of targets[i] for vectors[i]. */
void tlm_softmax_targets(tlm_context *c, uint32_t count, const float *const *vectors,
                         const uint32_t *targets, float *out);

/* Scratch for both; 0 where there is no matrix. */
size_t tlm_softmax_room(const tlm_matrix *weight, uint32_t batch);

#endif
