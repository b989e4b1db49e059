/* What the kernels of all instruction sets share; for kernels_*.c only. */
#ifndef TLM_KERNELS_INSIDE_H
#define TLM_KERNELS_INSIDE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define TLM_X86 1
#else
#define TLM_X86 0
#endif

/* Before loops over registers, whose arrays must not stay in memory. With the address sanitizer
   clang would take many minutes. */
#if defined(__clang__)
#if __has_feature(address_sanitizer)
#define UNROLL
#else
#define UNROLL _Pragma("clang loop unroll(full)")
#endif
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Group sums of inputs that are kept on the stack; beyond these they are made anew. */
enum { TLM_SUMS = 2048 };

/* The most columns that go into one 32-bit sum: (127 + 128) * 127 * 65536 < 2^31. */
#define TLM_SPAN 65536u

static inline uint32_t tlm_ceil_div(uint32_t value, uint32_t by)
{
    return value / by + (value % by != 0);
}

static inline uint32_t tlm_padded_rows(uint32_t rows)
{
    return tlm_ceil_div(rows, 16) * 16;
}

static inline uint32_t tlm_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A range of rows in quarters, one row of each being read at a time: four streams, each of which
   goes on and on through pages of its own, as processors fetch ahead. Of four neighbouring rows
   they do not: from memory, that takes twice as long. */
typedef struct tlm_quarters {
    uint32_t first_end; /* of the first quarter */
    uint32_t apart;     /* from a row of one quarter to that of the next */
    uint32_t rest;      /* first of the rows, at most three, that are left over */
    uint32_t end;
} tlm_quarters;

static inline tlm_quarters tlm_quarters_of(uint32_t begin, uint32_t end)
{
    const uint32_t apart = begin < end ? (end - begin) / 4 : 0;
    return (tlm_quarters){begin + apart, apart, begin + 4 * apart, end};
}

/* Rows (padding included) of the block that starts at `row`. */
static inline uint32_t tlm_rows_of_block(const tlm_matrix *w, uint32_t row)
{
    return tlm_least(TLM_BLOCK_ROWS, tlm_padded_rows(w->out) - row);
}

/* Runs ([rows][4] bytes each) that hold the codes of a row block. */
static inline size_t tlm_runs(uint32_t columns, unsigned bits)
{
    if (bits == 3)
        return (size_t)tlm_ceil_div(columns, 32) + tlm_ceil_div(columns, 16);
    return tlm_ceil_div(columns, 32 / bits);
}

/* What was added to the codes of fewer than 8 bits. */
static inline int32_t tlm_code_offset(unsigned bits)
{
    return bits == 8 ? 0 : 1 << (bits - 1);
}

static inline int32_t tlm_sum_input(const int8_t *q, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += q[k];
    return sum;
}

static inline float tlm_from_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu;
    uint32_t bits;
    float value;
    if (rest >= 0x7c00u) {
        bits = 0x7f800000u | (rest & 0x3ffu) << 13;
    } else if (rest >= 0x400u) {
        bits = (rest << 13) + 0x38000000u;
    } else {
        value = (float)rest * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Stored blocks in the rows of blocks before `row`, and where the bits of that row begin. */
size_t tlm_stored_before(const tlm_matrix *w, uint32_t row, size_t *bit);

/* Declares the functions of cells and scores that kernels.h explains. */
#define TLM_CELL_FUNCTIONS(prefix)                                                                \
    void prefix##_lstm(const float *gates, const float *more, const float *bias, uint32_t n,      \
                       float *cell, float *hidden);                                               \
    float prefix##_add_max(float *to, const float *from, const float *bias, uint32_t n);          \
    void prefix##_subtract(float *x, uint32_t n, float by);

tlm_product tlm_portable_quantized, tlm_portable_dense, tlm_portable_codebook, tlm_portable_binary_codes,
    tlm_portable_product_codes, tlm_portable_sparse, tlm_portable_block_sparse;
tlm_many tlm_portable_quantized_many, tlm_portable_dense_many;
void tlm_portable_round_input(const float *x, uint32_t n, int8_t *q, float *scale);
void tlm_portable_sigmoid(float *x, uint32_t n);
void tlm_portable_tanh(float *x, uint32_t n);
float tlm_portable_max(const float *x, uint32_t n);
float tlm_portable_sum_exp(const float *x, uint32_t n, float shift);
TLM_CELL_FUNCTIONS(tlm_portable)

#if TLM_X86
tlm_product tlm_avx2_quantized, tlm_avx2_quantized_near, tlm_avx2_dense, tlm_avx2_codebook, tlm_avx2_binary_codes,
    tlm_avx2_product_codes, tlm_avx2_sparse, tlm_avx2_block_sparse;
tlm_many tlm_avx2_quantized_many, tlm_avx2_dense_many;
void tlm_avx2_round_input(const float *x, uint32_t n, int8_t *q, float *scale);
void tlm_avx2_sigmoid(float *x, uint32_t n);
void tlm_avx2_tanh(float *x, uint32_t n);
float tlm_avx2_max(const float *x, uint32_t n);
float tlm_avx2_sum_exp(const float *x, uint32_t n, float shift);
TLM_CELL_FUNCTIONS(tlm_avx2)
/* table[c] = centroid c times x; count is a multiple of 8. */
void tlm_avx2_table(float *table, const uint16_t *centroids, uint32_t count, uint32_t size,
                    const float *x, uint32_t columns);

tlm_product tlm_avx512_quantized, tlm_avx512_quantized_near, tlm_avx512_dense,
    tlm_avx512_codebook, tlm_avx512_product_codes,
    tlm_avx512_sparse, tlm_avx512_block_sparse;
tlm_many tlm_avx512_quantized_many, tlm_avx512_dense_many;
void tlm_avx512_round_input(const float *x, uint32_t n, int8_t *q, float *scale);
void tlm_avx512_sigmoid(float *x, uint32_t n);
void tlm_avx512_tanh(float *x, uint32_t n);
float tlm_avx512_max(const float *x, uint32_t n);
float tlm_avx512_sum_exp(const float *x, uint32_t n, float shift);
TLM_CELL_FUNCTIONS(tlm_avx512)
#endif

/* exp(x) = 2^n * p(r), x = n ln 2 + r; ln 2 in two parts, the first exact in products with n. */
#define TLM_LOG2E 1.44269504088896341f
#define TLM_LN2_HIGH 0.693359375f
#define TLM_LN2_LOW (-2.12194440e-4f)
#define TLM_EXP_LEAST (-87.3f)
#define TLM_EXP_MOST 88.0f
#define TLM_EXP_2 5.0000001201e-1f
#define TLM_EXP_3 1.6666665459e-1f
#define TLM_EXP_4 4.1665795894e-2f
#define TLM_EXP_5 8.3334519073e-3f
#define TLM_EXP_6 1.3981999507e-3f
#define TLM_EXP_7 1.9875691500e-4f
/* tanh(x) = x + x z p(z), z = x^2, below this; 1 - 2 / (exp(2 x) + 1) from there on. */
#define TLM_TANH_SMALL 0.625f
#define TLM_TANH_3 (-3.33332819422e-1f)
#define TLM_TANH_5 1.33314422036e-1f
#define TLM_TANH_7 (-5.37397155531e-2f)
#define TLM_TANH_9 2.06390887954e-2f
#define TLM_TANH_11 (-5.70498872745e-3f)

#endif
