/* Products of any stored form with one or several vectors. */
#ifndef TLM_PRODUCT_H
#define TLM_PRODUCT_H

#include <stddef.h>

#include "kernels.h"
#include "threads.h"

/* What computes: the kernels, and threads that share large products (NULL: none). */
typedef struct tlm_engine {
    const tlm_kernels *kernels;
    tlm_pool *pool;
} tlm_engine;

/* Working memory, taken from the front; a copy of it is a place to go back to. */
typedef struct tlm_scratch {
    unsigned char *at;
    unsigned char *end;
} tlm_scratch;

#define TLM_SCRATCH_STEP 64u

/* Sums and products of sizes that stay at TLM_TOO_MUCH once they reach it. */
#define TLM_TOO_MUCH (SIZE_MAX / 4)

static inline size_t tlm_plus(size_t a, size_t b)
{
    return a >= TLM_TOO_MUCH || b >= TLM_TOO_MUCH - a ? TLM_TOO_MUCH : a + b;
}

static inline size_t tlm_times(size_t a, size_t b)
{
    return a != 0 && b >= TLM_TOO_MUCH / a ? TLM_TOO_MUCH : a * b;
}

static inline size_t tlm_most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Bytes that `count` things of `size` bytes take in a scratch. */
static inline size_t tlm_scratch_bytes(size_t count, size_t size)
{
    const size_t bytes = tlm_plus(tlm_times(count, size), TLM_SCRATCH_STEP - 1);
    return bytes == TLM_TOO_MUCH ? bytes : bytes / TLM_SCRATCH_STEP * TLM_SCRATCH_STEP;
}

/* Take room for `count` things of `size` bytes at a multiple of 64. The sizes were added up when
   the context was made, so there always is room. */
void *tlm_scratch_take(tlm_scratch *scratch, size_t count, size_t size);

/* Floats that hold `rows` results and whole blocks of 16, wherever a part of them begins. */
static inline size_t tlm_padded_floats(size_t rows)
{
    return (rows + 31) / 16 * 16;
}

/* Scratch that `tlm_prepare` takes for `count` vectors of `size` numbers. */
size_t tlm_prepare_room(uint32_t size, uint32_t count);

/* Make inputs for products with `w` of `count` vectors, x[i] of `size` numbers each; they are
   rounded where a part of `w` computes with integers. */
tlm_input *tlm_prepare(const tlm_engine *engine, const tlm_matrix *w, const float *const *x,
                       uint32_t size, uint32_t count, tlm_scratch *scratch);

/* Scratch for products of `w` with up to `count` vectors. */
size_t tlm_multiply_room(const tlm_matrix *w, uint32_t count);

/* y[i * stride .. + out) = w x_i for `count` inputs, made for `w` or for a matrix with the same
   input that is made of the same forms. y[i * stride] has room for whole blocks of 16 rows. */
void tlm_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                  uint32_t count, float *y, size_t stride, tlm_scratch scratch);

/* Both at once: y[i * stride .. + out) = w x_i for `count` vectors of w->in numbers. */
void tlm_apply(const tlm_engine *engine, const tlm_matrix *w, const float *const *x,
               uint32_t count, float *y, size_t stride, tlm_scratch scratch);

/* Scratch for `tlm_apply`; 0 for NULL. */
size_t tlm_apply_room(const tlm_matrix *w, uint32_t count);

/* The rows [begin, end) alone of a matrix without children, begin a multiple of 64. */
void tlm_multiply_rows(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                       float *y, uint32_t begin, uint32_t end);

/* Whether some rows of `w` take no more than their part of the time of all. */
bool tlm_has_single_rows(const tlm_matrix *w);

/* y[i * stride + begin .. + end) = these rows of such a matrix times `count` inputs; begin is a
   multiple of 64, end one too or the number of rows. */
void tlm_multiply_block(const tlm_kernels *kernels, const tlm_matrix *w, const tlm_input *in,
                        uint32_t count, float *y, size_t stride, uint32_t begin, uint32_t end);

/* Whether threads share a piece of work of so many multiplications. */
bool tlm_shares(const tlm_engine *engine, uint64_t amount);

/* Whether any part of `w` computes with rounded inputs. */
bool tlm_reads_integers(const tlm_matrix *w);

/* Scratch for `tlm_look_up`. */
size_t tlm_look_up_room(const tlm_matrix *w);

/* out[0 .. in) = row `row` of w. `out` has room for whole blocks of 16 numbers. */
void tlm_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch);

/* to[0 .. n) += scale * from; they do not overlap. */
void tlm_add_scaled(float *restrict to, const float *restrict from, float scale, uint32_t n);

/* Scratch for `tlm_combine`. */
size_t tlm_combine_room(const tlm_matrix *w);
/* out[0 .. in) += the rows of `w`, each times its weight. Each part of `w` is read once, so that
   forms inside forms do not multiply the work. */
void tlm_combine(const tlm_matrix *w, const float *weights, float *out, tlm_scratch scratch);

/* out[0 .. in) += the rows of a leaf, each times its weight; see combine.c. */
void tlm_combine_leaf(const tlm_matrix *w, const float *weights, float *out);
/* out[0 .. in) = row `row` of a leaf that is neither dense nor sparse. */
void tlm_look_up_coded(const tlm_matrix *w, uint32_t row, float *out);
/* out[0 .. in) = row `row` of a sparse or block-sparse matrix. */
void tlm_look_up_sparse(const tlm_matrix *w, uint32_t row, float *out);
/* out[0 .. in) += the rows of a sparse or block-sparse matrix, each times its weight. */
void tlm_combine_sparse(const tlm_matrix *w, const float *weights, float *out);

/* Tensor trains; see tensor_train.c. */
size_t tlm_train_room(const tlm_matrix *w, uint32_t count);
void tlm_train_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                        uint32_t count, float *y, size_t stride, tlm_scratch scratch);
size_t tlm_train_look_up_room(const tlm_matrix *w);
void tlm_train_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch);

/* Placed blocks; see placed.c. */
size_t tlm_placed_room(const tlm_matrix *w, uint32_t count);
void tlm_placed_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                         uint32_t count, float *y, size_t stride, tlm_scratch scratch);
size_t tlm_placed_look_up_room(const tlm_matrix *w);
void tlm_placed_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch);
size_t tlm_placed_combine_room(const tlm_matrix *w);
void tlm_placed_combine(const tlm_matrix *w, const float *weights, float *out, tlm_scratch scratch);

#endif
