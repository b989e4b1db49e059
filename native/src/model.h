/* A model as it lies in its file: configuration, matrices, biases. */
#ifndef TLM_MODEL_H
#define TLM_MODEL_H

#include "bias.h"
#include "container.h"
#include "matrix.h"
#include "reader.h"
#include "terselm.h"
#include "vocabulary.h"

#define TLM_FORMAT 1u
#define TLM_MAX_LAYERS 64u
#define TLM_MAX_TAILS 16u
#define TLM_MAX_SIZE (1 << 20)

typedef enum tlm_cell {
    TLM_LSTM, /* with a projection where config.projection is not 0 */
    TLM_GRU,
    TLM_RNN_TANH,
    TLM_RNN_RELU,
    TLM_PROJECTED_GRU,
    TLM_PROJECTED_RNN_TANH,
    TLM_PROJECTED_RNN_RELU
} tlm_cell;

typedef struct tlm_config {
    tlm_cell cell;
    uint32_t hidden[TLM_MAX_LAYERS];
    uint32_t layers;
    uint32_t embedding;
    uint32_t projection;  /* 0: none */
    uint32_t output_size; /* of the vector that the output layer reads */
    uint32_t cutoffs[TLM_MAX_TAILS];
    uint32_t inner[TLM_MAX_TAILS]; /* inner size of each cluster */
    uint32_t tails;       /* clusters; 0 with a softmax */
    bool tied;
    bool adaptive;
    bool half_bias; /* of the output layer */
} tlm_config;

/* One recurrent layer; what its cell does not have is NULL. */
typedef struct tlm_layer {
    const tlm_matrix *weight_ih; /* [gates * hidden, input] */
    const tlm_matrix *weight_hh; /* [gates * hidden, output] */
    const tlm_matrix *weight_hr; /* [output, hidden]: cells with a projection */
    const tlm_matrix *gates_ih;  /* [2 * output, input]: projected_gru */
    const tlm_matrix *gates_hh;  /* [2 * output, output]: projected_gru */
    const float *bias;           /* [gates * hidden] */
    const float *bias_hn;        /* [hidden]: gru */
    const float *gates_bias;     /* [2 * output]: projected_gru */
    uint32_t input;
    uint32_t hidden;
    uint32_t output;
} tlm_layer;

/* A cluster of rarer words: scores are words (down h). */
typedef struct tlm_tail {
    const tlm_matrix *down;  /* [inner, output_size] */
    const tlm_matrix *words; /* [words of the cluster, inner] */
} tlm_tail;

typedef struct tlm_output {
    const tlm_matrix *projection; /* [embedding, output_size], or NULL */
    const tlm_matrix *weight;     /* [vocabulary, ...], the embedding where tied; NULL: adaptive */
    const tlm_matrix *head;       /* [cutoff + tails, output_size]; NULL: softmax */
    tlm_bias bias;                /* of weight or head */
    tlm_permutation order;        /* adaptive: ids, most frequent first */
    tlm_tail tails[TLM_MAX_TAILS];
} tlm_output;

struct tlm_model {
    tlm_container container;
    tlm_json document; /* checked; while the model is being opened */
    tlm_config config;
    tlm_vocabulary vocabulary;
    uint32_t vocabulary_size;
    uint64_t read_bytes;
    uint32_t matrices;
    const tlm_matrix *embedding;
    tlm_layer *layers; /* [config.layers] */
    tlm_output output;
    size_t bytes;         /* of its memory, from the front */
    size_t opening_bytes; /* what opening it takes */
    bool is_allocated;    /* by tlm_open */
    void *mapping;        /* what `tlm_open_file` mapped or allocated, or NULL */
    size_t mapping_size;  /* 0: allocated */
};

const char *tlm_cell_name(tlm_cell cell);
/* Stacked gates in weight_ih, weight_hh and bias. */
uint32_t tlm_cell_gates(tlm_cell cell);

/* Read "config"; the reader's name is "config" while it does. */
tlm_status tlm_read_config(tlm_reader *reader, tlm_json config, tlm_config *out);
/* Read every matrix and bias that the configuration asks for. */
tlm_status tlm_read_weights(tlm_reader *reader, tlm_json weights, tlm_model *model);
/* Free what `tlm_open_file` mapped. */
void tlm_release_file(void *mapping, size_t mapping_size);

typedef enum tlm_trust { TLM_VERIFY, TLM_TRUST } tlm_trust;

/* Opening in steps: check a file as far as possible without memory, say how many bytes are always
   enough for it, and open it in them; compare the checksum or not. */
tlm_status tlm_check_file(const void *bytes, size_t n, tlm_container *container,
                          const tlm_fault *fault);
tlm_status tlm_enough_for(const tlm_container *container, size_t *size, const tlm_fault *fault);
tlm_status tlm_open_at(const tlm_container *container, tlm_trust trust, void *memory,
                       size_t memory_size, tlm_model **out, const tlm_fault *fault);
/* `tlm_open`, likewise. */
tlm_status tlm_open_model(const void *bytes, size_t n, tlm_trust trust, tlm_model **out,
                          char *message, size_t message_size);

#endif
