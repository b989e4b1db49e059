/* Dense matrices, the rounding of inputs and the functions of cells with AVX2. */
#include <math.h>

#include "kernels_avx2.h"

#if TLM_X86

INLINE __m256 size_of(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

INLINE float most_of(__m256 v)
{
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
}

TARGET void tlm_avx2_round_input(const float *x, uint32_t n, int8_t *q, float *scale)
{
    __m256 most = _mm256_setzero_ps();
    for (uint32_t k = 0; k < n; k += 8)
        most = _mm256_max_ps(size_of(some(x + k, n - k)), most); /* NaN: keeps the second */
    const float step = most_of(most) / 127.0f;
    *scale = step;
    const uint32_t room = tlm_ceil_div(n, 64) * 64;
    if (!(step > 0)) {
        memset(q, 0, room);
        return;
    }
    const __m256 by = _mm256_set1_ps(step);
    for (uint32_t k = 0; k < room; k += 8) {
        __m256 value = k < n ? some(x + k, n - k) : _mm256_setzero_ps();
        value = _mm256_max_ps(_mm256_div_ps(value, by), _mm256_set1_ps(-127.0f));
        value = _mm256_min_ps(value, _mm256_set1_ps(127.0f));
        const __m256i whole = _mm256_cvtps_epi32(value);
        const __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        _mm_storel_epi64((__m128i *)(void *)(q + k), _mm_packs_epi16(words, words));
    }
}

/* n rows, `apart` rows from each other, times m inputs; each sum is added up in the same order
   whatever n and m are. */
INLINE void dots(const tlm_matrix *w, const tlm_input *in, float *y, size_t stride, uint32_t row,
                 uint32_t apart, int n, int m, bool half)
{
    __m256 s[4][4], x[4];
    UNROLL for (int i = 0; i < n; i++)
        UNROLL for (int c = 0; c < m; c++) s[i][c] = _mm256_setzero_ps();
    const uint32_t whole = w->in - w->in % 8;
    for (uint32_t k = 0; k < whole; k += 8) {
        UNROLL for (int c = 0; c < m; c++) x[c] = _mm256_loadu_ps(in[c].x + k);
        UNROLL for (int i = 0; i < n; i++) {
            const size_t at = ((size_t)row + (size_t)i * apart) * w->in + k;
            const __m256 v = half ? halves((const uint16_t *)w->u.dense.values + at)
                                  : _mm256_loadu_ps((const float *)w->u.dense.values + at);
            UNROLL for (int c = 0; c < m; c++) s[i][c] = _mm256_fmadd_ps(v, x[c], s[i][c]);
        }
    }
    if (whole < w->in) {
        const uint32_t left = w->in - whole;
        UNROLL for (int c = 0; c < m; c++) x[c] = some(in[c].x + whole, left);
        UNROLL for (int i = 0; i < n; i++) {
            const size_t at = ((size_t)row + (size_t)i * apart) * w->in + whole;
            const __m256 v = half ? some_halves((const uint16_t *)w->u.dense.values + at, left)
                                  : some((const float *)w->u.dense.values + at, left);
            UNROLL for (int c = 0; c < m; c++) s[i][c] = _mm256_fmadd_ps(v, x[c], s[i][c]);
        }
    }
    UNROLL for (int i = 0; i < n; i++)
        UNROLL for (int c = 0; c < m; c++)
            y[(size_t)c * stride + row + (size_t)i * apart] = total_of(s[i][c]);
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

TARGET void tlm_avx2_dense(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                           uint32_t row_end)
{
    const tlm_quarters rows = tlm_quarters_of(row_begin, tlm_least(row_end, w->out));
    four_rows_of_one(w, in, y, row_begin, rows.first_end, rows.apart);
    single_rows(w, in, y, rows.rest, rows.end);
}

TARGET void tlm_avx2_dense_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                                size_t stride, uint32_t row_begin, uint32_t row_end)
{
    const tlm_quarters rows = tlm_quarters_of(row_begin, tlm_least(row_end, w->out));
    for (uint32_t row = row_begin; row < rows.first_end; row += TLM_BLOCK_ROWS / 4) {
        const uint32_t stop = row + tlm_least(TLM_BLOCK_ROWS / 4, rows.first_end - row);
        uint32_t i = 0;
        for (; i + 3 <= count; i += 3)
            four_rows(w, in + i, y + i * stride, stride, row, stop, rows.apart, 3);
        for (; i < count; i++)
            four_rows_of_one(w, in + i, y + i * stride, row, stop, rows.apart);
    }
    for (uint32_t i = 0; i < count; i++)
        single_rows(w, in + i, y + i * stride, rows.rest, rows.end);
}

INLINE __m256 fma_by(__m256 p, __m256 r, float next)
{
    return _mm256_fmadd_ps(p, r, _mm256_set1_ps(next));
}

INLINE __m256 exp_of(__m256 x)
{
    const __m256 from = x;
    x = _mm256_max_ps(_mm256_set1_ps(TLM_EXP_LEAST), x); /* NaN stays */
    x = _mm256_min_ps(_mm256_set1_ps(TLM_EXP_MOST), x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(TLM_LOG2E)), 8);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(TLM_LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(TLM_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(TLM_EXP_7);
    p = fma_by(p, r, TLM_EXP_6);
    p = fma_by(p, r, TLM_EXP_5);
    p = fma_by(p, r, TLM_EXP_4);
    p = fma_by(p, r, TLM_EXP_3);
    p = fma_by(p, r, TLM_EXP_2);
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(power, 23)));
    return _mm256_blendv_ps(p, from, _mm256_cmp_ps(from, from, _CMP_UNORD_Q));
}

INLINE void store_some(float *x, __m256 v, uint32_t n)
{
    if (n >= 8)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, lanes(n), v);
}

INLINE __m256 sigmoid_of(__m256 v)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 e = exp_of(_mm256_or_ps(_mm256_set1_ps(-0.0f), v));
    return _mm256_div_ps(_mm256_blendv_ps(one, e, v), _mm256_add_ps(one, e)); /* by the sign */
}

INLINE __m256 tanh_of(__m256 v)
{
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    const __m256 size = size_of(v), z = _mm256_mul_ps(v, v);
    __m256 p = _mm256_set1_ps(TLM_TANH_11);
    p = fma_by(p, z, TLM_TANH_9);
    p = fma_by(p, z, TLM_TANH_7);
    p = fma_by(p, z, TLM_TANH_5);
    p = fma_by(p, z, TLM_TANH_3);
    const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, z), v, v);
    const __m256 e = exp_of(_mm256_mul_ps(two, size));
    const __m256 large = _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(e, one)));
    const __m256 with_sign = _mm256_or_ps(large, _mm256_and_ps(v, _mm256_set1_ps(-0.0f)));
    const __m256 is_small = _mm256_cmp_ps(size, _mm256_set1_ps(TLM_TANH_SMALL), _CMP_LT_OQ);
    return _mm256_blendv_ps(with_sign, small, is_small);
}

TARGET void tlm_avx2_sigmoid(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 8)
        store_some(x + k, sigmoid_of(some(x + k, n - k)), n - k);
}

TARGET void tlm_avx2_tanh(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 8)
        store_some(x + k, tanh_of(some(x + k, n - k)), n - k);
}

INLINE __m256 gate(const float *gates, const float *more, const float *bias, size_t at, uint32_t n)
{
    const __m256 first = _mm256_add_ps(some(gates + at, n), some(bias + at, n));
    return _mm256_add_ps(first, some(more + at, n));
}

TARGET void tlm_avx2_lstm(const float *gates, const float *more, const float *bias, uint32_t n,
                          float *cell, float *hidden)
{
    for (uint32_t k = 0; k < n; k += 8) {
        const uint32_t left = n - k;
        const __m256 in = sigmoid_of(gate(gates, more, bias, k, left));
        const __m256 forget = sigmoid_of(gate(gates, more, bias, (size_t)n + k, left));
        const __m256 new = tanh_of(gate(gates, more, bias, 2 * (size_t)n + k, left));
        const __m256 out = sigmoid_of(gate(gates, more, bias, 3 * (size_t)n + k, left));
        const __m256 now = _mm256_fmadd_ps(in, new, _mm256_mul_ps(forget, some(cell + k, left)));
        store_some(cell + k, now, left);
        store_some(hidden + k, _mm256_mul_ps(out, tanh_of(now)), left);
    }
}

TARGET float tlm_avx2_add_max(float *to, const float *from, const float *bias, uint32_t n)
{
    __m256 most = _mm256_set1_ps(-INFINITY);
    uint32_t k = 0;
    for (; k + 8 <= n; k += 8) {
        const __m256 sum = _mm256_add_ps(_mm256_loadu_ps(from + k), _mm256_loadu_ps(bias + k));
        _mm256_storeu_ps(to + k, sum);
        most = _mm256_max_ps(sum, most);
    }
    float rest = most_of(most);
    for (; k < n; k++) {
        to[k] = from[k] + bias[k];
        rest = to[k] > rest ? to[k] : rest;
    }
    return rest;
}

TARGET void tlm_avx2_subtract(float *x, uint32_t n, float by)
{
    for (uint32_t k = 0; k < n; k += 8)
        store_some(x + k, _mm256_sub_ps(some(x + k, n - k), _mm256_set1_ps(by)), n - k);
}

TARGET float tlm_avx2_max(const float *x, uint32_t n)
{
    __m256 most = _mm256_set1_ps(-INFINITY);
    uint32_t k = 0;
    for (; k + 8 <= n; k += 8)
        most = _mm256_max_ps(_mm256_loadu_ps(x + k), most);
    float rest = most_of(most);
    for (; k < n; k++)
        rest = x[k] > rest ? x[k] : rest;
    return rest;
}

/* In single precision over a few registers, in double over all. */
TARGET float tlm_avx2_sum_exp(const float *x, uint32_t n, float shift)
{
    const __m256 by = _mm256_set1_ps(shift);
    double total = 0;
    for (uint32_t k = 0; k < n;) {
        const uint32_t end = k + tlm_least(128, n - k);
        __m256 sum = _mm256_setzero_ps();
        for (; k < end; k += 8) {
            __m256 e = exp_of(_mm256_sub_ps(some(x + k, n - k), by));
            if (n - k < 8)
                e = _mm256_and_ps(e, _mm256_castsi256_ps(lanes(n - k)));
            sum = _mm256_add_ps(sum, e);
        }
        total += (double)total_of(sum);
    }
    return (float)total;
}

#endif
