/* What every reader of a weight needs: its name, its fields, its tensors. */
#ifndef TLM_READER_H
#define TLM_READER_H

#include "arena.h"
#include "container.h"
#include "fault.h"
#include "json.h"
#include "matrix.h"

#define TLM_NAME_SIZE 256u
#define TLM_MAX_FORM_DEPTH 16u
#define TLM_MAX_SIDE 0x7fffffff
/* A matrix of 256 blocks needs 7 MB. */
#ifdef TLM_FUZZING /* only `make fuzz` defines it: a fuzzer tries thousands of files a second */
#define TLM_MOST_SEARCHED ((uint64_t)1 << 24)
#else
#define TLM_MOST_SEARCHED ((uint64_t)1 << 28)
#endif

typedef struct tlm_reader {
    const tlm_container *container;
    tlm_arena *arena;
    const tlm_fault *fault;
    char name[TLM_NAME_SIZE]; /* of the weight or part of one that is being read */
    uint32_t depth;           /* of forms in forms */
    uint64_t work;            /* of the tensor trains read so far */
    uint32_t matrices;        /* read so far, forms inside others not counted */
    uint64_t searched;        /* bytes of descriptions that were looked through for parts */
} tlm_reader;

/* Refuse what is being read: "<name>: <message>", TLM_ERROR_MODEL. */
tlm_status tlm_refuse(const tlm_reader *reader, const char *format, ...) TLM_PRINTF(2, 3);

/* The bytes of a value to show in a message, for "%.*s"; "nothing" where it is missing. */
int tlm_shown_size(tlm_json value);
const char *tlm_shown(tlm_json value);

/* Find a field; `value` is empty where there is none. Refuses one that is there twice. */
tlm_status tlm_find_field(const tlm_reader *reader, tlm_json spec, const char *key,
                          tlm_json *value);
/* Count a look through a description for one of its parts: to refuse it before a small file makes
   minutes of them. */
tlm_status tlm_count_search(tlm_reader *reader, tlm_json description);
/* Read an integer in [least, most]. */
tlm_status tlm_read_integer(const tlm_reader *reader, tlm_json spec, const char *key,
                            int64_t least, int64_t most, uint32_t *out);
/* Read true or false; `fallback`, if not NULL, is for a field that is missing. */
tlm_status tlm_read_flag(const tlm_reader *reader, tlm_json spec, const char *key,
                         const bool *fallback, bool *out);
/* Read a list of `least` to `most` integers in [smallest, 2^31); `count` receives how many. */
tlm_status tlm_read_integers(const tlm_reader *reader, tlm_json spec, const char *key,
                             uint32_t smallest, size_t least, size_t most, uint32_t *out,
                             size_t *count);
/* As `tlm_read_integers`, from 1. */
tlm_status tlm_read_sizes(const tlm_reader *reader, tlm_json spec, const char *key, size_t least,
                          size_t most, uint32_t *out, size_t *count);

/* Find the tensor "<name>.<part>" and check its type and its shape [count]. */
tlm_status tlm_read_tensor(const tlm_reader *reader, const char *part, tlm_type type,
                           uint64_t count, const void **out);
/* As `tlm_read_tensor`, of shape [rows, columns]. */
tlm_status tlm_read_table(const tlm_reader *reader, const char *part, tlm_type type,
                          uint64_t rows, uint64_t columns, const void **out);
/* As `tlm_read_tensor`, of F16 or F32, without NaN or infinite values. */
tlm_status tlm_read_finite(const tlm_reader *reader, const char *part, tlm_type type,
                           uint64_t count, const void **out);
/* Refuse NaN and infinite values. */
tlm_status tlm_check_finite(const tlm_reader *reader, const char *part, tlm_type type,
                            const void *values, uint64_t count);

static inline uint64_t tlm_round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static inline uint64_t tlm_padded_rows(uint64_t rows)
{
    return tlm_round_up(rows, TLM_ROW_MULTIPLE);
}

/* Rows of block number `block`, padding included. */
static inline uint32_t tlm_block_height(uint32_t rows, uint32_t block)
{
    uint64_t left = tlm_padded_rows(rows) - (uint64_t)block * TLM_BLOCK_ROWS;
    return left < TLM_BLOCK_ROWS ? (uint32_t)left : TLM_BLOCK_ROWS;
}

/* Take `count` matrices from the arena. */
tlm_status tlm_take_matrices(tlm_reader *reader, size_t count, tlm_matrix **out);
/* Read the child `key` of a spec into `out`. */
tlm_status tlm_read_child(tlm_reader *reader, tlm_json spec, const char *key, tlm_matrix *out);

/* One reader a group of forms: fills `matrix->u`, whose form, out and in are set. */
tlm_status tlm_read_dense(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_quantized(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_codebook(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_binary_codes(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_product_codes(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_sparse(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_block_sparse(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_low_rank(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_row_blocks(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_grouped_rows(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_placed_blocks(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);
tlm_status tlm_read_tensor_train(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix);

/* Read the matrix that `spec` describes, whose tensors start with reader->name. */
tlm_status tlm_read_matrix(tlm_reader *reader, tlm_json spec, tlm_matrix *out);

#endif
