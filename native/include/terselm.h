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

/* Free a model and what it maps; NULL is allowed. Pointers from `tlm_describe` end with it. */
TLM_API void tlm_close(tlm_model *model);

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
} tlm_description;

/* Describe a model. Pointers lead into the model. Returns TLM_OK or TLM_ERROR_ARGUMENT. */
TLM_API tlm_status tlm_describe(const tlm_model *model, tlm_description *out);

#ifdef __cplusplus
}
#endif

#endif
