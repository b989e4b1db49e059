/* A context: working memory, kernels and threads for one model. */
#ifndef TLM_CONTEXT_H
#define TLM_CONTEXT_H

#include "model.h"
#include "preview.h"
#include "product.h"

#define TLM_MAX_BATCH 4096u

struct tlm_context {
    const tlm_model *model;
    tlm_engine engine;
    size_t bytes;
    uint32_t batch;
    size_t vector_width;  /* floats of a row of `vectors` */
    size_t width;         /* floats of a row of `first`, `second` and `third` */
    size_t score_width;   /* floats of a row of `scores` */
    float *vectors;       /* [batch][vector_width]: word vectors */
    float *first;         /* [batch][width] */
    float *second;
    float *third;         /* [batch][width] where the cell is a projected_gru, else nothing */
    float *scores;        /* [batch][score_width] */
    float *kept;          /* [batch][output size]: output vectors of a sequence */
    float *chosen;        /* [batch] */
    const float **inputs; /* [batch] */
    const float **more;   /* [batch] */
    float **outputs;      /* [batch]: where the states of a layer begin */
    tlm_scratch scratch;
    tlm_preview preview;  /* bits is 0 where there is none */
    void *block;          /* what `tlm_context_open` allocated, or NULL */
};

/* Make a context in `size` zeroed bytes at a multiple of 64, as many as `tlm_context_size` says. */
tlm_status tlm_context_make(const tlm_model *model, const tlm_options *options, void *memory,
                            size_t size, tlm_context **out);

/* Floats of the state of a layer: what it puts out, then, for an LSTM, the cell. */
static inline uint32_t tlm_layer_state(const tlm_model *model, uint32_t layer)
{
    const tlm_layer *l = &model->layers[layer];
    return l->output + (model->config.cell == TLM_LSTM ? l->hidden : 0);
}

/* The matrices that a layer may have; those of other cells are NULL. */
enum { TLM_LAYER_MATRICES = 5 };
static inline void tlm_layer_matrices(const tlm_layer *l,
                                      const tlm_matrix *all[TLM_LAYER_MATRICES])
{
    all[0] = l->weight_ih;
    all[1] = l->weight_hh;
    all[2] = l->weight_hr;
    all[3] = l->gates_ih;
    all[4] = l->gates_hh;
}

/* Step all layers: states[i] reads the word vector in context->vectors, row i. */
void tlm_run_cells(tlm_context *context, uint32_t count, void *const *states);

/* Scratch that the cells need for `batch` states. */
size_t tlm_cells_room(const tlm_model *model, uint32_t batch);

/* What the output layer reads from a state: the last layer's output. */
const float *tlm_output_vector(const tlm_model *model, const void *state);

/* Log-probabilities of all tokens for `count` output vectors, at out + i * stride; `out` may be
   context->scores. */
void tlm_all_scores(tlm_context *context, uint32_t count, const float *const *vectors, float *out,
                    size_t stride);

/* out[i] = log-probability of targets[i] for vectors[i]. */
void tlm_target_scores(tlm_context *context, uint32_t count, const float *const *vectors,
                       const uint32_t *targets, float *out);

size_t tlm_output_room(const tlm_model *model, uint32_t batch);

#endif
