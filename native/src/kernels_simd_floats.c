/* Dense matrices, the rounding of inputs and the functions of cells with registers of 128 bits. */
#include <math.h>

#include "kernels_simd.h"

#if TLM_SIMD

/* The first n of 4 numbers, the others `rest`. */
SIMD f4 load_part(const float *x, uint32_t n, float rest)
{
    float part[4] = {rest, rest, rest, rest};
    for (uint32_t k = 0; k < n; k++)
        part[k] = x[k];
    return f4_load(part);
}

SIMD f4 load_up_to(const float *x, uint32_t n, float rest)
{
    return n >= 4 ? f4_load(x) : load_part(x, n, rest);
}

SIMD void store_up_to(float *x, uint32_t n, f4 a)
{
    float part[4];
    if (n >= 4) {
        f4_store(x, a);
        return;
    }
    f4_store(part, a);
    for (uint32_t k = 0; k < n; k++)
        x[k] = part[k];
}

void tlm_simd_round_input(const float *x, uint32_t n, int8_t *q, float *scale)
{
    f4 most = f4_all(0);
    for (uint32_t k = 0; k < n; k += 4)
        most = f4_max_number(f4_abs(load_up_to(x + k, n - k, 0)), most);
    const float step = f4_greatest(most) / 127.0f;
    *scale = step;
    memset(q, 0, (size_t)tlm_ceil_div(n, 64) * 64);
    if (!(step > 0))
        return;
    const f4 by = f4_all(step), greatest = f4_all(127.0f);
    for (uint32_t k = 0; k < n; k += 4) {
        f4 value = f4_div(load_up_to(x + k, n - k, 0), by);
        value = f4_max_number(value, f4_all(-127.0f)); /* NaN too */
        i4_store_bytes(q + k, f4_round(f4_at_most(value, greatest)));
    }
}

SIMD f4 numbers(const void *values, bool half, size_t at)
{
    return half ? f4_halves((const uint16_t *)values + at) : f4_load((const float *)values + at);
}

SIMD float number(const void *values, bool half, size_t at)
{
    return half ? tlm_from_half(((const uint16_t *)values)[at]) : ((const float *)values)[at];
}

/* n rows at once, `apart` rows from each other, two sums each, so that sums do not wait for each
   other. */
SIMD void dot_rows(const tlm_matrix *w, const float *x, float *y, uint32_t row, uint32_t apart,
                   uint32_t n, bool half)
{
    const void *values = w->u.dense.values;
    const uint32_t columns = w->in;
    const size_t first = (size_t)row * columns, step = (size_t)apart * columns;
    f4 even[4], odd[4];
    uint32_t k = 0;
    UNROLL for (uint32_t i = 0; i < n; i++) even[i] = odd[i] = f4_all(0);
    for (; columns - k >= 8; k += 8) {
        const f4 low = f4_load(x + k), high = f4_load(x + k + 4);
        UNROLL for (uint32_t i = 0; i < n; i++) {
            const size_t at = first + i * step + k;
            even[i] = f4_madd(numbers(values, half, at), low, even[i]);
            odd[i] = f4_madd(numbers(values, half, at + 4), high, odd[i]);
        }
    }
    if (columns - k >= 4) {
        UNROLL for (uint32_t i = 0; i < n; i++)
            even[i] = f4_madd(numbers(values, half, first + i * step + k),
                              f4_load(x + k), even[i]);
        k += 4;
    }
    UNROLL for (uint32_t i = 0; i < n; i++) {
        float sum = f4_sum(f4_add(even[i], odd[i]));
        for (uint32_t rest = k; rest < columns; rest++)
            sum += number(values, half, first + i * step + rest) * x[rest];
        y[row + (size_t)i * apart] = sum;
    }
}

void tlm_simd_dense(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                    uint32_t row_end)
{
    const tlm_quarters rows = tlm_quarters_of(row_begin, tlm_least(row_end, w->out));
    uint32_t row = row_begin;
    if (w->u.dense.half) {
        for (; row < rows.first_end; row++)
            dot_rows(w, in->x, y, row, rows.apart, 4, true);
        for (row = rows.rest; row < rows.end; row++)
            dot_rows(w, in->x, y, row, 0, 1, true);
    } else {
        for (; row < rows.first_end; row++)
            dot_rows(w, in->x, y, row, rows.apart, 4, false);
        for (row = rows.rest; row < rows.end; row++)
            dot_rows(w, in->x, y, row, 0, 1, false);
    }
}

SIMD f4 madd_next(f4 p, f4 r, float next)
{
    return f4_madd(p, r, f4_all(next));
}

SIMD f4 exp_of(f4 x)
{
    x = f4_at_least(x, f4_all(TLM_EXP_LEAST));
    x = f4_at_most(x, f4_all(TLM_EXP_MOST));
    const i4 power = f4_round(f4_mul(x, f4_all(TLM_LOG2E)));
    const f4 n = f4_from_i4(power);
    f4 r = f4_msub(n, f4_all(TLM_LN2_HIGH), x); /* NaN stays */
    r = f4_msub(n, f4_all(TLM_LN2_LOW), r);
    f4 p = f4_all(TLM_EXP_7);
    p = madd_next(p, r, TLM_EXP_6);
    p = madd_next(p, r, TLM_EXP_5);
    p = madd_next(p, r, TLM_EXP_4);
    p = madd_next(p, r, TLM_EXP_3);
    p = madd_next(p, r, TLM_EXP_2);
    p = f4_add(f4_madd(p, f4_mul(r, r), r), f4_all(1.0f));
    return f4_mul(p, f4_power_of_2(power));
}

SIMD f4 sigmoid_of(f4 v)
{
    const f4 one = f4_all(1.0f), zero = f4_all(0);
    const f4 e = exp_of(f4_sub(zero, f4_abs(v)));
    return f4_div(f4_choose(f4_less(v, zero), e, one), f4_add(one, e));
}

SIMD f4 tanh_of(f4 v)
{
    const f4 one = f4_all(1.0f), two = f4_all(2.0f), limit = f4_all(TLM_TANH_SMALL);
    const f4 size = f4_abs(v), z = f4_mul(v, v);
    f4 p = f4_all(TLM_TANH_11);
    p = madd_next(p, z, TLM_TANH_9);
    p = madd_next(p, z, TLM_TANH_7);
    p = madd_next(p, z, TLM_TANH_5);
    p = madd_next(p, z, TLM_TANH_3);
    const f4 small = f4_madd(f4_mul(p, z), size, size);
    const f4 e = exp_of(f4_mul(two, size));
    const f4 large = f4_sub(one, f4_div(two, f4_add(e, one)));
    return f4_with_sign(f4_choose(f4_less(size, limit), small, large), v);
}

void tlm_simd_sigmoid(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 4)
        store_up_to(x + k, n - k, sigmoid_of(load_up_to(x + k, n - k, 0)));
}

void tlm_simd_tanh(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += 4)
        store_up_to(x + k, n - k, tanh_of(load_up_to(x + k, n - k, 0)));
}

SIMD f4 gate(const float *gates, const float *more, const float *bias, size_t at, uint32_t n)
{
    const f4 first = f4_add(load_up_to(gates + at, n, 0), load_up_to(bias + at, n, 0));
    return f4_add(first, load_up_to(more + at, n, 0));
}

void tlm_simd_lstm(const float *gates, const float *more, const float *bias, uint32_t n,
                   float *cell, float *hidden)
{
    for (uint32_t k = 0; k < n; k += 4) {
        const uint32_t left = n - k;
        const f4 in = sigmoid_of(gate(gates, more, bias, k, left));
        const f4 forget = sigmoid_of(gate(gates, more, bias, (size_t)n + k, left));
        const f4 new = tanh_of(gate(gates, more, bias, 2 * (size_t)n + k, left));
        const f4 out = sigmoid_of(gate(gates, more, bias, 3 * (size_t)n + k, left));
        const f4 now = f4_madd(in, new, f4_mul(forget, load_up_to(cell + k, left, 0)));
        store_up_to(cell + k, left, now);
        store_up_to(hidden + k, left, f4_mul(out, tanh_of(now)));
    }
}

float tlm_simd_add_max(float *to, const float *from, const float *bias, uint32_t n)
{
    f4 most = f4_all(-INFINITY);
    for (uint32_t k = 0; k < n; k += 4) {
        const f4 sum = f4_add(load_up_to(from + k, n - k, -INFINITY), load_up_to(bias + k, n - k, 0));
        store_up_to(to + k, n - k, sum);
        most = f4_max_number(sum, most);
    }
    return f4_greatest(most);
}

void tlm_simd_subtract(float *x, uint32_t n, float by)
{
    for (uint32_t k = 0; k < n; k += 4)
        store_up_to(x + k, n - k, f4_sub(load_up_to(x + k, n - k, 0), f4_all(by)));
}

float tlm_simd_max(const float *x, uint32_t n)
{
    f4 most = f4_all(-INFINITY);
    for (uint32_t k = 0; k < n; k += 4)
        most = f4_max_number(load_up_to(x + k, n - k, -INFINITY), most);
    return f4_greatest(most);
}

float tlm_simd_sum_exp(const float *x, uint32_t n, float shift)
{
    const f4 by = f4_all(shift);
    double sum = 0;
    uint32_t k = 0;
    for (; n - k >= 4; k += 4)
        sum += f4_sum_wide(exp_of(f4_sub(f4_load(x + k), by)));
    if (k < n) {
        float rest[4];
        f4_store(rest, exp_of(f4_sub(load_part(x + k, n - k, shift), by)));
        for (uint32_t i = 0; i < n - k; i++)
            sum += (double)rest[i];
    }
    return (float)sum;
}

#endif
