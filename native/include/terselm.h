/* terselm: run a small recurrent language model from its file.
 *
 * The library reads the `.safetensors` files that terselm writes. It needs a C11 compiler and the
 * C library, nothing else. Nothing in a file is trusted: whatever it holds, a call returns an
 * error code and never exits, aborts or reads beyond the bytes it was given.
 *
 * A model does not change after it was opened; any number of threads may use it at once. */
#ifndef TERSELM_H
#define TERSELM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && defined(TLM_SHARED)
#ifdef TLM_BUILD
#define TLM_API __declspec(dllexport)
#else
#define TLM_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define TLM_API __attribute__((visibility("default")))
#else
#define TLM_API
#endif

/* What a call returns: TLM_OK, or what went wrong. The numbers stay as they are. */
typedef enum tlm_status {
    TLM_OK = 0,
    TLM_ERROR_ARGUMENT = 1,    /* an argument cannot be: NULL, misaligned, out of range */
    TLM_ERROR_MEMORY = 2,      /* no memory */
    TLM_ERROR_READ = 3,        /* the file cannot be opened or read */
    TLM_ERROR_NOT_A_MODEL = 4, /* not a safetensors file, or not one that terselm wrote */
    TLM_ERROR_DAMAGED = 5,     /* cut off, or its header contradicts itself or its size */
    TLM_ERROR_CHECKSUM = 6,    /* the bytes are not those that were written */
    TLM_ERROR_VERSION = 7,     /* a format, cell or stored form that this library does not know */
    TLM_ERROR_MODEL = 8        /* the file is whole but describes an impossible model */
} tlm_status;

/* What a status means, in a few English words; never NULL, also for numbers that are none. */
TLM_API const char *tlm_error_text(tlm_status status);

/* A model in memory. */
typedef struct tlm_model tlm_model;

/* Open a model that lies in memory.
 *
 * bytes         the whole file, `n` bytes, at an address that is a multiple of 8. It is not
 *               copied: it must stay as it is until `tlm_close`.
 * out           receives the model; NULL on an error.
 * message       receives one line that says what is wrong and in which field, cut to
 *               `message_size` bytes with its final NUL; empty on success. May be NULL.
 *
 * Reads every byte once (checksum, NaN, indices). Takes one block of memory: a few kilobytes and
 * what the description, the table of tensors and permutations of words need.
 *
 * Returns any status but TLM_ERROR_READ. */
TLM_API tlm_status tlm_open(const void *bytes, size_t n, tlm_model **out, char *message,
                            size_t message_size);

/* Open a model file: as `tlm_open`, on the file mapped into memory, or read where it cannot be.
 *
 * A mapped file must not be cut or written to in place while the model is open; replacing it by
 * renaming another one over it (as terselm does) is safe. */
TLM_API tlm_status tlm_open_file(const char *path, tlm_model **out, char *message,
                                 size_t message_size);

/* As `tlm_open_file`, without comparing the checksum, which takes most of the time of opening: for
 * files that something else vouches for, such as the signature of an application. Everything that
 * safety needs is checked all the same. */
TLM_API tlm_status tlm_open_trusted_file(const char *path, tlm_model **out, char *message,
                                         size_t message_size);

/* Free a model and what it maps; NULL is allowed. Pointers from `tlm_describe` end with it. */
TLM_API void tlm_close(tlm_model *model);

/* Opening in memory of the caller's, where there is no malloc: compile with -DTLM_NO_MALLOC, which
 * leaves out the calls above and `tlm_context_open`, files (as -DTLM_NO_FILES) and threads (as
 * -DTLM_NO_THREADS). No call that is left takes memory or needs to be closed. */

/* Bytes that are always enough for `tlm_open_in`; what a model really takes is less. Returns what
 * `tlm_open` returns for a damaged header. */
TLM_API tlm_status tlm_open_size(const void *bytes, size_t n, size_t *size, char *message,
                                 size_t message_size);
/* As `tlm_open`, in `memory`, `memory_size` bytes at a multiple of 16. The model keeps the first
 * `tlm_model_bytes` of them; the others are the caller's again when the call returns.
 * TLM_ERROR_MEMORY where they are too few. */
TLM_API tlm_status tlm_open_in(const void *bytes, size_t n, void *memory, size_t memory_size,
                               tlm_model **out, char *message, size_t message_size);
/* The same without comparing the checksum: for bytes that something else vouches for, such as the
 * firmware that they are part of. Everything that safety needs is checked all the same. */
TLM_API tlm_status tlm_open_trusted_in(const void *bytes, size_t n, void *memory,
                                       size_t memory_size, tlm_model **out, char *message,
                                       size_t message_size);
/* Bytes of its memory that a model keeps, and that opening it takes: one byte less is refused. */
TLM_API size_t tlm_model_bytes(const tlm_model *model);
TLM_API size_t tlm_opening_bytes(const tlm_model *model);

/* What a model is. */
typedef struct tlm_description {
    uint32_t format;             /* version of the file format */
    const char *cell;            /* "lstm", "gru", "rnn_tanh", "projected_gru", ... */
    const char *output;          /* "softmax" or "adaptive" */
    const char *vocabulary_kind; /* "words", "characters" or "bpe" */
    uint32_t vocabulary_size;    /* tokens */
    uint32_t embedding;          /* numbers in a word vector */
    uint32_t layers;             /* recurrent layers, 1 to 64 */
    const uint32_t *hidden;      /* hidden units of each layer, [layers] */
    uint32_t projection;         /* numbers a layer hands on, where smaller than hidden; else 0 */
    uint32_t matrices;           /* matrices of the model, a tied one once */
    bool tied;                   /* the output layer uses the embedding */
    uint64_t file_bytes;         /* size of the file */
    uint64_t read_bytes;         /* bytes of it that a token reads, with the probabilities of all:
                                    all matrices and biases, but not an embedding that is not tied,
                                    of which it reads a row */
} tlm_description;

/* Describe a model. Pointers lead into the model. Returns TLM_OK or TLM_ERROR_ARGUMENT. */
TLM_API tlm_status tlm_describe(const tlm_model *model, tlm_description *out);

/* What a thread computes with: working memory for one model. Contexts share nothing that changes;
 * one context is for one thread at a time. */
typedef struct tlm_context tlm_context;

/* How a preview is used; see `preview` below. */
typedef enum tlm_preview_mode {
    TLM_PREVIEW_EXACT = 0, /* the words and their order are those without it, but for words whose
                              log-probabilities are equal as float32 */
    TLM_PREVIEW_FAST = 1   /* words may be missed that only errors of four deviations would save */
} tlm_preview_mode;

typedef struct tlm_options {
    uint32_t batch;      /* states that can be stepped together, 1 to 4096; 0 means 1 */
    uint32_t threads;    /* threads that share large products, 1 to 256; 0 means 1. More than 1 is
                            TLM_ERROR_ARGUMENT where the library was built without threads */
    const char *kernels; /* "portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"; NULL: the
                            best that this machine has */
    uint32_t preview;    /* bits of a preview of the output layer, 2, 3 or 4; 0: none. `tlm_top`
                            reads it in the place of the output matrix, then the exact scores of
                            the words that may be among the best. It is computed by
                            `tlm_context_open` and takes its memory from the context.
                            TLM_ERROR_ARGUMENT with an adaptive output, one that is a tensor
                            train or placed blocks (merged models), and blocks of rows that are
                            themselves made of others; left out where it would not save a quarter
                            of the bytes or the matrix has whole blocks of zeros, see
                            `tlm_context_preview`. TLM_PREVIEW_FAST without bits is
                            TLM_ERROR_ARGUMENT */
    tlm_preview_mode preview_mode;
} tlm_options;

/* Whether this library has kernels of this name and this machine can run them. */
TLM_API bool tlm_can_run(const char *kernels);

/* Make a context; `options` may be NULL. All memory is taken here: no later call takes any.
 * Returns TLM_OK, TLM_ERROR_MEMORY, or TLM_ERROR_ARGUMENT for options that cannot be. */
TLM_API tlm_status tlm_context_open(const tlm_model *model, const tlm_options *options,
                                    tlm_context **out);
TLM_API void tlm_context_close(tlm_context *context);
/* Bytes of a context with these options, exactly. */
TLM_API tlm_status tlm_context_size(const tlm_model *model, const tlm_options *options,
                                    size_t *size);
/* As `tlm_context_open`, in `memory`, at least `tlm_context_size` bytes at a multiple of 64: fewer
 * are TLM_ERROR_MEMORY, more than one thread TLM_ERROR_ARGUMENT. */
TLM_API tlm_status tlm_context_open_in(const tlm_model *model, const tlm_options *options,
                                       void *memory, size_t memory_size, tlm_context **out);
/* The name of the kernels in use. */
TLM_API const char *tlm_context_kernels(const tlm_context *context);
/* Bits of the preview in use; 0 where there is none, or it was left out. */
TLM_API uint32_t tlm_context_preview(const tlm_context *context);
/* Bytes that the context takes. */
TLM_API size_t tlm_context_bytes(const tlm_context *context);

/* A state is where a text is: plain bytes, `tlm_state_size` of them, at a multiple of 4. Copy it
 * with memcpy. */
TLM_API size_t tlm_state_size(const tlm_model *model);
/* The state before anything was read. A text begins with the token `tlm_start_token`. */
TLM_API tlm_status tlm_state_init(const tlm_model *model, void *state);
/* Write a state for storage: `tlm_state_saved_size` bytes, which say which model it is of. */
TLM_API size_t tlm_state_saved_size(const tlm_model *model);
TLM_API tlm_status tlm_state_save(const tlm_model *model, const void *state, void *bytes);
/* Read a saved state. TLM_ERROR_DAMAGED if it is none, TLM_ERROR_MODEL if it is of another model. */
TLM_API tlm_status tlm_state_restore(const tlm_model *model, const void *bytes, size_t size,
                                     void *state);

/* Read one token. Returns TLM_OK, or TLM_ERROR_ARGUMENT with the state as it was. */
TLM_API tlm_status tlm_step(tlm_context *context, void *state, uint32_t token);
/* Read one token in each of `count` different states, at most the context's batch. */
TLM_API tlm_status tlm_step_many(tlm_context *context, uint32_t count, void *const *states,
                                 const uint32_t *tokens);

/* out[token] = natural logarithm of the probability of each token, `vocabulary_size` numbers. */
TLM_API tlm_status tlm_log_probabilities(tlm_context *context, const void *state, float *out);
/* The same for several states: out[i * vocabulary_size + token]. */
TLM_API tlm_status tlm_log_probabilities_many(tlm_context *context, uint32_t count,
                                              const void *const *states, float *out);
/* The log-probabilities of `count` given tokens. */
TLM_API tlm_status tlm_score_tokens(tlm_context *context, const void *state,
                                    const uint32_t *tokens, uint32_t count, float *out);
/* Read a sequence of tokens; out[i] (may be NULL) receives the log-probability of tokens[i] given
 * what came before, `total` (may be NULL) their sum. The output layer reads as many tokens at once
 * as the context's batch. */
TLM_API tlm_status tlm_score_sequence(tlm_context *context, void *state, const uint32_t *tokens,
                                      size_t count, float *out, double *total);

/* As `tlm_score_sequence`; ranks[i] receives how many other tokens are at least as likely as
 * tokens[i]. */
TLM_API tlm_status tlm_rank_sequence(tlm_context *context, void *state, const uint32_t *tokens,
                                     size_t count, float *out, uint32_t *ranks);

typedef struct tlm_choice {
    uint32_t token;
    float log_probability;
} tlm_choice;

/* The k most likely tokens, most likely first; equal ones in order of their numbers. k is 1 or
 * more.
 *
 * prefix        tokens whose text begins with these `prefix_size` bytes only; NULL for all.
 * exclude       `exclude_count` tokens to leave out; may be NULL.
 * found         receives how many there are: k, or fewer.
 *
 * Log-probabilities are those among all tokens. With a preview the sum that they are divided by
 * holds the preview's scores of the words that were not scored exactly: it errs by no more than
 * the largest of their bounds, which is the same for all words of a call. */
TLM_API tlm_status tlm_top(tlm_context *context, const void *state, const char *prefix,
                           size_t prefix_size, const uint32_t *exclude, uint32_t exclude_count,
                           uint32_t k, tlm_choice *out, uint32_t *found);

/* The token that ends a line and that a text begins with. */
TLM_API uint32_t tlm_start_token(const tlm_model *model);
/* The token of everything outside the vocabulary; TLM_NO_TOKEN if there is none. */
#define TLM_NO_TOKEN UINT32_MAX
TLM_API uint32_t tlm_unknown_token(const tlm_model *model);

#define TLM_MAX_TOKEN_BYTES 255

/* The text of a token, as it is in a text: `size` bytes (no final NUL) in `text`, which has room
 * for TLM_MAX_TOKEN_BYTES. The line end is a newline in a text; among words its text is "<eos>". */
TLM_API tlm_status tlm_token_text(const tlm_model *model, uint32_t token, char *text,
                                  uint32_t *size);
/* The token with exactly this text, TLM_NO_TOKEN if there is none. */
TLM_API uint32_t tlm_find_token(const tlm_model *model, const char *text, size_t size);

/* Tokens of a text in UTF-8; each newline becomes the line end.
 *
 * tokens        receives at most `room` tokens; may be NULL where room is 0.
 * count         receives how many there are, also where they are more than `room`; nothing where
 *               `text` is not UTF-8.
 *
 * Byte pairs are merged within pieces of 4,096 bytes (512 with -DTLM_NO_MALLOC) at most, which only
 * made-up text or scripts without spaces reach; Python merges longer ones whole.
 *
 * Returns TLM_OK; TLM_ERROR_ARGUMENT if `text` is not UTF-8, or holds something outside a
 * vocabulary that has no token for it. */
TLM_API tlm_status tlm_tokenize(const tlm_model *model, const char *text, size_t size,
                                uint32_t *tokens, size_t room, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
