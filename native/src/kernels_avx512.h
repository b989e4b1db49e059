/* How the AVX-512 kernels are compiled. */
#ifndef TLM_KERNELS_AVX512_H
#define TLM_KERNELS_AVX512_H

#include "kernels_inside.h"

#if TLM_X86
#include <immintrin.h>

#define TARGET \
    __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Ask for a cache line `ahead` bytes on; it may lie beyond the matrix, which does no harm. */
INLINE void fetch(const uint8_t *at, uintptr_t ahead)
{
    _mm_prefetch((const char *)((uintptr_t)at + ahead), _MM_HINT_T0);
}

INLINE __m512 halves(const uint16_t *at)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

/* Four bytes in all lanes. */
INLINE __m512i four(const int8_t *q)
{
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

/* The first n lanes. */
INLINE __mmask16 lanes(uint32_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

/* The sum of n numbers; q has zeros up to a multiple of 4 where n is not one. */
int32_t tlm_avx512_sum_input(const int8_t *q, uint32_t n);

#endif
#endif
