/* Dense matrices, the rounding of inputs and the functions of cells with AVX-512. */
#include <math.h>

#include "kernels_avx512.h"

#if TLM_X86

TARGET void tlm_avx512_round_input(const float *x, uint32_t n, int8_t *q, float *scale)
{
    __m512 most = _mm512_setzero_ps();
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        most = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(valid, x + k)), most);
    }
    const float step = _mm512_reduce_max_ps(most) / 127.0f;
    *scale = step;
    const uint32_t room = tlm_ceil_div(n, 64) * 64;
    if (!(step > 0)) {
        memset(q, 0, room);
        return;
    }
    const __m512 by = _mm512_set1_ps(step);
    for (uint32_t k = 0; k < room; k += 16) {
        const __mmask16 valid = lanes(k < n ? tlm_least(16, n - k) : 0);
        __m512 value = _mm512_div_ps(_mm512_maskz_loadu_ps(valid, x + k), by);
        value = _mm512_max_ps(value, _mm512_set1_ps(-127.0f));
        value = _mm512_min_ps(value, _mm512_set1_ps(127.0f));
        _mm_storeu_si128((__m128i *)(void *)(q + k),
                         _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value)));
    }
}

INLINE __m512 numbers(const tlm_matrix *w, bool half, size_t at, __mmask16 valid)
{
    if (half)
        return _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16(valid, (const uint16_t *)w->u.dense.values + at));
    return _mm512_maskz_loadu_ps(valid, (const float *)w->u.dense.values + at);
}

/* n rows, `apart` rows from each other, times m inputs; each sum is added up in the same order
   whatever n and m are. */
INLINE void dots(const tlm_matrix *w, const tlm_input *in, float *y, size_t stride, uint32_t row,
                 uint32_t apart, int n, int m, bool half)
{
    __m512 s[4][5], x[5];
    UNROLL for (int i = 0; i < n; i++)
        UNROLL for (int c = 0; c < m; c++) s[i][c] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < w->in; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, w->in - k));
        UNROLL for (int c = 0; c < m; c++) x[c] = _mm512_maskz_loadu_ps(valid, in[c].x + k);
        UNROLL for (int i = 0; i < n; i++) {
            const __m512 v = numbers(w, half, ((size_t)row + (size_t)i * apart) * w->in + k, valid);
            UNROLL for (int c = 0; c < m; c++) s[i][c] = _mm512_fmadd_ps(v, x[c], s[i][c]);
        }
    }
    UNROLL for (int i = 0; i < n; i++)
        UNROLL for (int c = 0; c < m; c++)
            y[(size_t)c * stride + row + (size_t)i * apart] = _mm512_reduce_add_ps(s[i][c]);
}

INLINE void four_rows(const tlm_matrix *w, const tlm_input *in, float *y, size_t stride,
                      uint32_t row, uint32_t end, uint32_t apart, int m)
{
    if (w->u.dense.half)
        for (; row < end; row++)
            dots(w, in, y, stride, row, apart, 4, m, true);
    else
        for (; row < end; row++)
            dots(w, in, y, stride, row, apart, 4, m, false);
}

/* Of a single input; functions, which are there once. */
static TARGET void four_rows_of_one(const tlm_matrix *w, const tlm_input *in, float *y,
                                    uint32_t row, uint32_t end, uint32_t apart)
{
    four_rows(w, in, y, 0, row, end, apart, 1);
}

static TARGET void single_rows(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row,
                               uint32_t end)
{
    for (; row < end; row++)
        if (w->u.dense.half)
            dots(w, in, y, 0, row, 0, 1, 1, true);
        else
            dots(w, in, y, 0, row, 0, 1, 1, false);
}

TARGET void tlm_avx512_dense(const tlm_matrix *w, const tlm_input *in, float *y,
                             uint32_t row_begin, uint32_t row_end)
{
    const tlm_quarters rows = tlm_quarters_of(row_begin, tlm_least(row_end, w->out));
    four_rows_of_one(w, in, y, row_begin, rows.first_end, rows.apart);
    single_rows(w, in, y, rows.rest, rows.end);
}

/* A block of rows stays in the caches while the inputs go through it. */
TARGET void tlm_avx512_dense_many(const tlm_matrix *w, const tlm_input *in, uint32_t count,
                                  float *y, size_t stride, uint32_t row_begin, uint32_t row_end)
{
    const tlm_quarters rows = tlm_quarters_of(row_begin, tlm_least(row_end, w->out));
    for (uint32_t row = row_begin; row < rows.first_end; row += 4) {
        const uint32_t stop = row + tlm_least(4, rows.first_end - row);
        uint32_t i = 0;
        for (; i + 5 <= count; i += 5)
            four_rows(w, in + i, y + i * stride, stride, row, stop, rows.apart, 5);
        for (; i + 2 <= count; i += 2)
            four_rows(w, in + i, y + i * stride, stride, row, stop, rows.apart, 2);
        for (; i < count; i++)
            four_rows_of_one(w, in + i, y + i * stride, row, stop, rows.apart);
    }
    for (uint32_t i = 0; i < count; i++)
        single_rows(w, in + i, y + i * stride, rows.rest, rows.end);
}

INLINE __m512 fma_by(__m512 p, __m512 r, float next)
{
    return _mm512_fmadd_ps(p, r, _mm512_set1_ps(next));
}

INLINE __m512 exp_of(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(TLM_EXP_LEAST), x); /* NaN stays */
    x = _mm512_min_ps(_mm512_set1_ps(TLM_EXP_MOST), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(TLM_LOG2E)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(TLM_LN2_HIGH), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(TLM_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(TLM_EXP_7);
    p = fma_by(p, r, TLM_EXP_6);
    p = fma_by(p, r, TLM_EXP_5);
    p = fma_by(p, r, TLM_EXP_4);
    p = fma_by(p, r, TLM_EXP_3);
    p = fma_by(p, r, TLM_EXP_2);
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

INLINE __m512 sigmoid_of(__m512 v)
{
    const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    const __m512 e = exp_of(_mm512_sub_ps(zero, _mm512_abs_ps(v)));
    const __m512 top = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, zero, _CMP_LT_OQ), one, e);
    return _mm512_div_ps(top, _mm512_add_ps(one, e));
}

INLINE __m512 tanh_of(__m512 v)
{
    const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    const __m512 size = _mm512_abs_ps(v), z = _mm512_mul_ps(v, v);
    __m512 p = _mm512_set1_ps(TLM_TANH_11);
    p = fma_by(p, z, TLM_TANH_9);
    p = fma_by(p, z, TLM_TANH_7);
    p = fma_by(p, z, TLM_TANH_5);
    p = fma_by(p, z, TLM_TANH_3);
    const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, z), v, v);
    const __m512 e = exp_of(_mm512_mul_ps(two, size));
    const __m512 large = _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(e, one)));
    const __m512 with_sign = _mm512_or_ps(large, _mm512_and_ps(v, _mm512_set1_ps(-0.0f)));
    const __mmask16 is_small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(TLM_TANH_SMALL), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(is_small, with_sign, small);
}

TARGET void tlm_avx512_sigmoid(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        _mm512_mask_storeu_ps(x + k, valid, sigmoid_of(_mm512_maskz_loadu_ps(valid, x + k)));
    }
}

TARGET void tlm_avx512_tanh(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        _mm512_mask_storeu_ps(x + k, valid, tanh_of(_mm512_maskz_loadu_ps(valid, x + k)));
    }
}

INLINE __m512 gate(const float *gates, const float *more, const float *bias, size_t at,
                   __mmask16 valid)
{
    const __m512 first = _mm512_add_ps(_mm512_maskz_loadu_ps(valid, gates + at),
                                       _mm512_maskz_loadu_ps(valid, bias + at));
    return _mm512_add_ps(first, _mm512_maskz_loadu_ps(valid, more + at));
}

TARGET void tlm_avx512_lstm(const float *gates, const float *more, const float *bias, uint32_t n,
                            float *cell, float *hidden)
{
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        const __m512 in = sigmoid_of(gate(gates, more, bias, k, valid));
        const __m512 forget = sigmoid_of(gate(gates, more, bias, (size_t)n + k, valid));
        const __m512 new = tanh_of(gate(gates, more, bias, 2 * (size_t)n + k, valid));
        const __m512 out = sigmoid_of(gate(gates, more, bias, 3 * (size_t)n + k, valid));
        const __m512 kept = _mm512_mul_ps(forget, _mm512_maskz_loadu_ps(valid, cell + k));
        const __m512 now = _mm512_fmadd_ps(in, new, kept);
        _mm512_mask_storeu_ps(cell + k, valid, now);
        _mm512_mask_storeu_ps(hidden + k, valid, _mm512_mul_ps(out, tanh_of(now)));
    }
}

TARGET float tlm_avx512_add_max(float *to, const float *from, const float *bias, uint32_t n)
{
    const __m512 least = _mm512_set1_ps(-INFINITY);
    __m512 most = least;
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(valid, from + k),
                                         _mm512_maskz_loadu_ps(valid, bias + k));
        _mm512_mask_storeu_ps(to + k, valid, sum);
        most = _mm512_mask_max_ps(most, valid, sum, most);
    }
    return _mm512_reduce_max_ps(most);
}

TARGET void tlm_avx512_subtract(float *x, uint32_t n, float by)
{
    const __m512 all = _mm512_set1_ps(by);
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        _mm512_mask_storeu_ps(x + k, valid, _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, x + k), all));
    }
}

TARGET float tlm_avx512_max(const float *x, uint32_t n)
{
    const __m512 least = _mm512_set1_ps(-INFINITY);
    __m512 most = least;
    for (uint32_t k = 0; k < n; k += 16) {
        const __mmask16 valid = lanes(tlm_least(16, n - k));
        most = _mm512_max_ps(_mm512_mask_loadu_ps(least, valid, x + k), most);
    }
    return _mm512_reduce_max_ps(most);
}

/* In single precision over a few registers, in double over all. */
TARGET float tlm_avx512_sum_exp(const float *x, uint32_t n, float shift)
{
    const __m512 by = _mm512_set1_ps(shift);
    double total = 0;
    for (uint32_t k = 0; k < n;) {
        const uint32_t end = k + tlm_least(256, n - k);
        __m512 sum = _mm512_setzero_ps();
        for (; k < end; k += 16) {
            const __mmask16 valid = lanes(tlm_least(16, n - k));
            const __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(valid, x + k), by);
            sum = _mm512_mask_add_ps(sum, valid, sum, exp_of(v));
        }
        total += (double)_mm512_reduce_add_ps(sum);
    }
    return (float)total;
}

#endif
