/* The arithmetic of the leaf forms, once for each instruction set. */
#ifndef TLM_KERNELS_H
#define TLM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "matrix.h"

/* A vector that goes into products. Integer forms (quantized, binary codes, and the sparse forms
   with codes) read q and scale, the others x. */
typedef struct tlm_input {
    const float *x;  /* [size] */
    const int8_t *q; /* [size rounded up to 64], zeros after size */
    float scale;     /* x is about scale * q */
    uint32_t size;
} tlm_input;

/* y[row_begin .. row_end) of a matrix times a vector. row_begin is a multiple of 64, row_end one
   too or the number of rows. y is indexed by row and has room for whole blocks of 16 rows; what
   is written beyond the last row has no meaning. */
typedef void tlm_product(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                         uint32_t row_end);

/* The same for `count` inputs: exactly what `count` single products give, the one of input i at
   y + i * stride. */
typedef void tlm_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                      size_t stride, uint32_t row_begin, uint32_t row_end);

typedef struct tlm_kernels {
    const char *name;
    /* q = round-half-to-even(x / scale) with scale = max |x| / 127; zeros up to a multiple of 64. */
    void (*round_input)(const float *x, uint32_t n, int8_t *q, float *scale);
    tlm_product *quantized;
    tlm_product *dense;
    tlm_product *codebook;
    tlm_product *binary_codes;
    tlm_product *product_codes;
    tlm_product *sparse;       /* TLM_SPARSE and TLM_SPARSE_QUANTIZED */
    tlm_product *block_sparse; /* TLM_BLOCK_SPARSE and TLM_BLOCK_SPARSE_QUANTIZED */
    tlm_many *quantized_many; /* NULL: no faster than one input after the other */
    tlm_many *dense_many;     /* likewise */
    void (*sigmoid)(float *x, uint32_t n); /* in place */
    void (*tanh)(float *x, uint32_t n);
    /* One step of an LSTM of n units whose gates (input, forget, cell, output; [4][n]) are
       (gates + bias) + more. */
    void (*lstm)(const float *gates, const float *more, const float *bias, uint32_t n, float *cell,
                 float *hidden);
    /* to = from + bias; the greatest of them. `to` may be `from`. */
    float (*add_max)(float *to, const float *from, const float *bias, uint32_t n);
    float (*max)(const float *x, uint32_t n);                  /* -INFINITY where n is 0 */
    float (*sum_exp)(const float *x, uint32_t n, float shift); /* sum of exp(x - shift) */
    void (*subtract)(float *x, uint32_t n, float by);          /* x -= by */
} tlm_kernels;

/* The fastest that this machine can run. */
const tlm_kernels *tlm_kernels_best(void);

/* "portable", "avx2", "avx512vnni"; NULL if unknown or the machine cannot. */
const tlm_kernels *tlm_kernels_named(const char *name);

#endif
