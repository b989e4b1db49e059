/* The kernels in plain C, which define what the others compute: integer codes, dense matrices
   and the functions of cells. */
#include <float.h>
#include <math.h>

#include "kernels_inside.h"

void tlm_portable_round_input(const float *x, uint32_t n, int8_t *q, float *scale)
{
    float most = 0;
    for (uint32_t k = 0; k < n; k++) {
        const float size = fabsf(x[k]);
        if (size > most)
            most = size;
    }
    const float step = most / 127.0f;
    *scale = step;
    const uint32_t room = tlm_ceil_div(n, 64) * 64;
    memset(q, 0, room);
    if (!(step > 0))
        return;
    for (uint32_t k = 0; k < n; k++) {
        float value = rintf(x[k] / step);
        value = value > -127.0f ? value : -127.0f; /* NaN too */
        value = value < 127.0f ? value : 127.0f;
        q[k] = (int8_t)value;
    }
}

/* Add the products of one run, [rows][4], whose numbers are (byte >> shift) & mask. */
static void add_run(uint32_t *sums, const uint8_t *run, uint32_t rows, unsigned shift,
                    unsigned mask, const int8_t *q)
{
    for (uint32_t r = 0; r < rows; r++, run += 4) {
        int32_t sum = 0;
        for (unsigned j = 0; j < 4; j++)
            sum += (int32_t)((unsigned)run[j] >> shift & mask) * q[j];
        sums[r] += (uint32_t)sum;
    }
}

static void add_run_of_bytes(uint32_t *sums, const uint8_t *run, uint32_t rows, const int8_t *q)
{
    for (uint32_t r = 0; r < rows; r++, run += 4) {
        int32_t sum = 0;
        for (unsigned j = 0; j < 4; j++)
            sum += (int32_t)(int8_t)run[j] * q[j];
        sums[r] += (uint32_t)sum;
    }
}

/* A run of the one-bit plane and the same columns of the two-bit plane. */
static void add_run_of_threes(uint32_t *sums, const uint8_t *high, const uint8_t *low,
                              uint32_t rows, unsigned step, const int8_t *q)
{
    const unsigned shift = 2 * (step % 4);
    for (uint32_t r = 0; r < rows; r++, high += 4, low += 4) {
        int32_t sum = 0;
        for (unsigned j = 0; j < 4; j++) {
            const unsigned code =
                ((unsigned)low[j] >> shift & 3u) | ((unsigned)high[j] >> step & 1u) << 2;
            sum += (int32_t)code * q[j];
        }
        sums[r] += (uint32_t)sum;
    }
}

/* Add codes (as stored) times inputs over the columns from `begin` (a multiple of 8) to `end`. */
static void add_span(uint32_t *sums, const uint8_t *block, uint32_t rows, unsigned bits,
                     uint32_t begin, uint32_t end, const int8_t *q)
{
    const size_t run = (size_t)rows * 4;
    for (uint32_t k = begin; k < end; k += 4) {
        if (bits == 8) {
            add_run_of_bytes(sums, block + k / 4 * run, rows, q + k);
        } else if (bits == 3) {
            const uint8_t *high = block + (size_t)(k / 32) * 3 * run;
            const uint8_t *low = high + run + k % 32 / 16 * run;
            add_run_of_threes(sums, high, low, rows, k % 32 / 4, q + k);
        } else {
            const uint32_t columns = 32 / bits;
            add_run(sums, block + k / columns * run, rows, k % columns / 4 * bits,
                    (1u << bits) - 1, q + k);
        }
    }
}

void tlm_portable_quantized(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                            uint32_t row_end)
{
    const tlm_quantized *m = &w->u.quantized;
    const uint32_t group = m->group ? m->group : w->in;
    const uint32_t offset = (uint32_t)tlm_code_offset(m->bits);
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        float totals[TLM_BLOCK_ROWS] = {0};
        for (uint32_t g = 0; g < m->groups; g++) {
            const uint32_t stop = g * group + tlm_least(group, w->in - g * group);
            const size_t at = (size_t)row * m->groups + (size_t)g * rows;
            for (uint32_t begin = g * group; begin < stop; begin += tlm_least(TLM_SPAN, stop - begin)) {
                const uint32_t end = begin + tlm_least(TLM_SPAN, stop - begin);
                const uint32_t sum_q = (uint32_t)tlm_sum_input(in->q + begin, end - begin);
                uint32_t sums[TLM_BLOCK_ROWS] = {0};
                add_span(sums, m->codes + row * row_bytes, rows, m->bits, begin, end, in->q);
                for (uint32_t r = 0; r < rows; r++) {
                    const size_t place = m->group ? at + r : 0;
                    const uint32_t zero = m->zeros ? (uint32_t)(int32_t)m->zeros[place] : 0;
                    uint32_t sum = sums[r] - (offset + zero) * sum_q;
                    if (m->mid_rise)
                        sum = 2 * sum + sum_q;
                    totals[r] += (float)(int32_t)sum * tlm_from_half(m->scales[place]);
                }
            }
        }
        for (uint32_t r = 0; r < rows; r++)
            y[row + r] = in->scale * totals[r];
    }
}

void tlm_portable_dense(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                        uint32_t row_end)
{
    const uint32_t n = w->in, whole = n - n % 8;
    for (uint32_t row = row_begin; row < tlm_least(row_end, w->out); row++) {
        float sums[8] = {0};
        if (w->u.dense.half) {
            const uint16_t *values = (const uint16_t *)w->u.dense.values + (size_t)row * n;
            for (uint32_t k = 0; k < n; k++)
                sums[k % 8] += tlm_from_half(values[k]) * in->x[k];
        } else {
            const float *values = (const float *)w->u.dense.values + (size_t)row * n;
            for (uint32_t k = 0; k < whole; k += 8)
                for (uint32_t j = 0; j < 8; j++)
                    sums[j] += values[k + j] * in->x[k + j];
            for (uint32_t k = whole; k < n; k++)
                sums[k - whole] += values[k] * in->x[k];
        }
        y[row] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
                 ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    }
}

void tlm_portable_quantized_many(const tlm_matrix *w, const tlm_input *in, uint32_t count,
                                 float *y, size_t stride, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t i = 0; i < count; i++)
        tlm_portable_quantized(w, in + i, y + i * stride, row_begin, row_end);
}

void tlm_portable_dense_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                             size_t stride, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t i = 0; i < count; i++)
        tlm_portable_dense(w, in + i, y + i * stride, row_begin, row_end);
}

static inline float exp_of(float x)
{
    x = x < TLM_EXP_LEAST ? TLM_EXP_LEAST : x;
    x = x > TLM_EXP_MOST ? TLM_EXP_MOST : x;
#if FLT_EVAL_METHOD == 0
    const float moved = x * TLM_LOG2E + 12582912.0f;
#else
    const volatile float moved = x * TLM_LOG2E + 12582912.0f; /* rounds to a float, on x87 too */
#endif
    const float n = moved - 12582912.0f; /* an integer */
    const float r = (x - n * TLM_LN2_HIGH) - n * TLM_LN2_LOW;
    float p = TLM_EXP_7;
    p = p * r + TLM_EXP_6;
    p = p * r + TLM_EXP_5;
    p = p * r + TLM_EXP_4;
    p = p * r + TLM_EXP_3;
    p = p * r + TLM_EXP_2;
    p = p * (r * r) + r + 1.0f;
    if (!(n >= -126.0f && n <= 127.0f)) /* only NaN comes here */
        return x;
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static inline float sigmoid_of(float x)
{
    const float e = exp_of(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

static inline float tanh_of(float x)
{
    const float size = fabsf(x), z = size * size;
    float p = TLM_TANH_11;
    p = p * z + TLM_TANH_9;
    p = p * z + TLM_TANH_7;
    p = p * z + TLM_TANH_5;
    p = p * z + TLM_TANH_3;
    const float small = p * z * size + size;
    const float large = 1.0f - 2.0f / (exp_of(2.0f * size) + 1.0f);
    return copysignf(size < TLM_TANH_SMALL ? small : large, x);
}

void tlm_portable_sigmoid(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        x[k] = sigmoid_of(x[k]);
}

void tlm_portable_tanh(float *x, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        x[k] = tanh_of(x[k]);
}

void tlm_portable_lstm(const float *gates, const float *more, const float *bias, uint32_t n,
                       float *cell, float *hidden)
{
    for (uint32_t k = 0; k < n; k++) {
        float gate[4];
        for (size_t g = 0, at = k; g < 4; g++, at += n)
            gate[g] = gates[at] + bias[at] + more[at];
        cell[k] = sigmoid_of(gate[1]) * cell[k] + sigmoid_of(gate[0]) * tanh_of(gate[2]);
        hidden[k] = sigmoid_of(gate[3]) * tanh_of(cell[k]);
    }
}

float tlm_portable_add_max(float *to, const float *from, const float *bias, uint32_t n)
{
    float most = -INFINITY;
    for (uint32_t k = 0; k < n; k++) {
        to[k] = from[k] + bias[k];
        most = to[k] > most ? to[k] : most;
    }
    return most;
}

void tlm_portable_subtract(float *x, uint32_t n, float by)
{
    for (uint32_t k = 0; k < n; k++)
        x[k] -= by;
}

float tlm_portable_max(const float *x, uint32_t n)
{
    float most = -INFINITY;
    for (uint32_t k = 0; k < n; k++)
        most = x[k] > most ? x[k] : most;
    return most;
}

float tlm_portable_sum_exp(const float *x, uint32_t n, float shift)
{
    double sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += (double)exp_of(x[k] - shift);
    return (float)sum;
}
