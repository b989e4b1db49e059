/* How the AVX2 kernels are compiled. */
#ifndef TLM_KERNELS_AVX2_H
#define TLM_KERNELS_AVX2_H

#include "kernels_inside.h"

#if TLM_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Ask for a cache line `ahead` bytes on; it may lie beyond the matrix, which does no harm. */
INLINE void fetch(const void *at, uintptr_t ahead)
{
    _mm_prefetch((const char *)((uintptr_t)at + ahead), _MM_HINT_T0);
}

INLINE __m256i load(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE __m256 halves(const uint16_t *at)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Four bytes in all lanes. */
INLINE __m256i four(const int8_t *q)
{
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

/* The first n lanes. */
INLINE __m256i lanes(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n numbers, n at most 8; zeros after them. */
INLINE __m256 some(const float *x, uint32_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes(n));
}

INLINE __m256 some_halves(const uint16_t *x, uint32_t n)
{
    uint16_t part[8] = {0};
    if (n >= 8)
        return halves(x);
    memcpy(part, x, n * sizeof *x);
    return halves(part);
}

INLINE float total_of(__m256 v)
{
    const __m128 four_sums = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four_sums, _mm_movehl_ps(four_sums, four_sums));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE int32_t total_of_integers(__m256i v)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

#endif
#endif
