/* Computing a preview of the output layer, once for a context. */
#include <math.h>
#include <string.h>

#include "kernels_inside.h"
#include "preview.h"

enum { SAMPLE = 1024, ROUNDS = 2, TRIES = 6 };

/* Room for `count` things of `size` bytes, counted, and taken where there is a scratch. */
static void *take(tlm_scratch *scratch, size_t *bytes, size_t count, size_t size)
{
    *bytes = tlm_plus(*bytes, tlm_scratch_bytes(count, size));
    return scratch == NULL ? NULL : tlm_scratch_take(scratch, count, size);
}

static void take_codes(tlm_scratch *scratch, size_t *bytes, tlm_matrix *m)
{
    tlm_quantized *q = &m->u.quantized;
    q->codes = take(scratch, bytes, m->out, tlm_runs(m->in, q->bits) * 4);
    q->scales = take(scratch, bytes, m->out, q->groups * sizeof *q->scales);
}

size_t tlm_preview_lay_out(tlm_preview *p, tlm_scratch *scratch)
{
    size_t bytes = 0;
    if (p->bits == 0)
        return 0;
    take_codes(scratch, &bytes, &p->codes);
    take_codes(scratch, &bytes, &p->shares);
    p->directions.u.dense.values = take(scratch, &bytes, p->directions.out, p->directions.in * sizeof(float));
    p->words = take(scratch, &bytes, p->rows, sizeof *p->words);
    float **const lists[] = {&p->bias, &p->across, &p->along, &p->scores, &p->most};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = take(scratch, &bytes, p->rows, sizeof(float));
    p->exact = take(scratch, &bytes, p->rows / TLM_BLOCK_ROWS, 1);
    return bytes;
}

static float *direction(const tlm_preview *p, uint32_t number)
{
    return (float *)(uintptr_t)p->directions.u.dense.values + (size_t)number * p->directions.in;
}

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += (double)a[k] * (double)b[k];
    return sum;
}

/* Make the directions orthonormal; one that the others make up becomes 0. */
static void orthonormalize(const tlm_preview *p)
{
    const uint32_t n = p->directions.in;
    for (uint32_t i = 0; i < p->directions.out; i++) {
        float *d = direction(p, i);
        const double before = dot(d, d, n);
        for (uint32_t twice = 0; twice < 2; twice++)
            for (uint32_t j = 0; j < i; j++) {
                const float share = (float)dot(d, direction(p, j), n);
                for (uint32_t k = 0; k < n; k++)
                    d[k] -= share * direction(p, j)[k];
            }
        const double left = dot(d, d, n);
        const double by = left > 1e-8 * before && isfinite(left) ? 1 / sqrt(left) : 0;
        for (uint32_t k = 0; k < n; k++)
            d[k] = by > 0 ? (float)(d[k] * by) : 0;
    }
}

/* shares = B row */
static void see(const tlm_engine *engine, const tlm_preview *p, const float *row, float *shares)
{
    const tlm_input in = {.x = row, .size = p->directions.in};
    tlm_multiply_rows(engine, &p->directions, &in, shares, 0, p->directions.out);
}

/* The directions in which the matrix is largest: subspace iteration (Halko et al. 2011) on rows
   spread over all words. */
static void find_directions(const tlm_engine *engine, const tlm_matrix *weight, const tlm_preview *p, tlm_scratch scratch)
{
    const uint32_t n = weight->in, count = tlm_least(SAMPLE, weight->out), r = p->directions.out;
    float *row = tlm_scratch_take(&scratch, tlm_padded_floats(n), sizeof *row);
    float *shares = tlm_scratch_take(&scratch, tlm_padded_floats(r), sizeof *shares);
    float *sums = tlm_scratch_take(&scratch, r, n * sizeof *sums);
    for (uint32_t i = 0; i < r; i++) {
        tlm_look_up(weight, (uint32_t)((uint64_t)weight->out * i / r), row, scratch);
        memcpy(direction(p, i), row, n * sizeof *row);
    }
    orthonormalize(p);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memset(sums, 0, (size_t)r * n * sizeof *sums);
        for (uint32_t s = 0; s < count; s++) {
            tlm_look_up(weight, (uint32_t)((uint64_t)weight->out * s / count), row, scratch);
            see(engine, p, row, shares);
            for (uint32_t i = 0; i < r; i++)
                for (uint32_t k = 0; k < n; k++)
                    sums[(size_t)i * n + k] += shares[i] * row[k];
        }
        memcpy(direction(p, 0), sums, (size_t)r * n * sizeof *sums);
        orthonormalize(p);
    }
}

/* The float16 below a positive number, at least the smallest one. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    if (value >= 65504.0f)
        return 0x7bff;
    if (value < 0x1p-14f)
        return (uint16_t)(value * 0x1p24f < 1 ? 1 : value * 0x1p24f);
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits - 0x38000000u) >> 13);
}

/* The level of a number in units of the scale: an integer, odd where levels are mid-rise. */
static int level_of(float value, const tlm_quantized *m)
{
    const int most = m->bits == 8 ? 127 : (1 << m->bits) - 1;
    value = value >= (float)-most ? value : (float)-most; /* NaN too */
    value = value <= (float)most ? value : (float)most;
    if (!m->mid_rise)
        return (int)(value + 1024.5f) - 1024;
    const int level = 2 * ((int)(value * 0.5f + 1024.0f) - 1024) + 1;
    return level > most ? most : level;
}

/* Put one code in its place; the memory was zero before. */
static void put(const tlm_matrix *w, uint32_t row, uint32_t k, int level)
{
    const tlm_quantized *m = &w->u.quantized;
    const size_t r = row % TLM_BLOCK_ROWS;
    uint8_t *block = (uint8_t *)(uintptr_t)m->codes + (row - r) * tlm_runs(w->in, m->bits) * 4 + r * 4 + k % 4;
    const size_t run = TLM_BLOCK_ROWS * 4;
    const unsigned code = m->bits == 8 ? (unsigned)level & 255u : (unsigned)((level - 1) / 2 + (1 << (m->bits - 1)));
    if (m->bits == 3) {
        block += k / 32 * 3 * run;
        *block = (uint8_t)(*block | (code >> 2) << k % 32 / 4);
        block += (1 + k % 32 / 16) * run;
        *block = (uint8_t)(*block | (code & 3u) << k % 16 / 4 * 2);
    } else {
        const uint32_t columns = 32u / m->bits;
        block += k / columns * run;
        *block = (uint8_t)(*block | code << k % columns / 4 * m->bits);
    }
}

/* Store a row, each group with the best of a few scales; what is lost stays in `row`. */
static void store(const tlm_matrix *w, uint32_t at, float *row)
{
    const tlm_quantized *m = &w->u.quantized;
    const int most_level = m->bits == 8 ? 127 : (1 << m->bits) - 1;
    for (uint32_t g = 0; g < m->groups; g++) {
        const uint32_t begin = g * m->group, end = begin + tlm_least(m->group, w->in - begin);
        float most = 0, best_error = INFINITY, best = 0;
        for (uint32_t k = begin; k < end; k++)
            most = fabsf(row[k]) > most ? fabsf(row[k]) : most;
        if (!(most > 0))
            continue; /* its scale stays 0 */
        for (int i = 0; i < (m->bits == 8 ? 1 : TRIES); i++) {
            const float scale = tlm_from_half(half_of(most * (1 - 0.1f * (float)i) / (float)most_level));
            float error = 0;
            for (uint32_t k = begin; k < end; k++) {
                const float lost = row[k] - scale * (float)level_of(row[k] / scale, m);
                error += lost * lost;
            }
            if (error < best_error || i == 0) {
                best_error = error;
                best = scale;
            }
        }
        const uint32_t r = at % TLM_BLOCK_ROWS;
        ((uint16_t *)(uintptr_t)m->scales)[(size_t)(at - r) * m->groups + g * TLM_BLOCK_ROWS + r] = half_of(best);
        for (uint32_t k = begin; k < end; k++) {
            const int level = level_of(row[k] / best, m);
            put(w, at, k, level);
            row[k] -= best * (float)level;
        }
    }
}

static void keep_most(float *most, float value)
{
    *most = value > *most ? value : *most;
}

/* Preview one row of the matrix, which lies in `row`. */
static void build_row(const tlm_engine *engine, tlm_preview *p, uint32_t at, float *row, float *shares, float *more)
{
    const uint32_t n = p->codes.in, r = p->shares.in;
    keep_most(&p->largest, tlm_length(dot(row, row, n)));
    see(engine, p, row, shares);
    for (uint32_t i = 0; i < r; i++)
        more[i] = -shares[i];
    tlm_combine_leaf(&p->directions, more, row);
    const double rest = sqrt(dot(row, row, n));
    store(&p->codes, at, row);
    see(engine, p, row, more);
    const double lost = dot(row, row, n);
    p->across[at] = tlm_length(lost - dot(more, more, r));
    for (uint32_t i = 0; i < r; i++)
        shares[i] += more[i];
    const double seen = dot(shares, shares, r);
    store(&p->shares, at, shares);
    p->along[at] = tlm_length(dot(shares, shares, r));
    const double kept = sqrt(seen) + (double)p->along[at];
    keep_most(&p->largest_share, tlm_length(kept * kept));
    /* |p| is at most the rest and what was lost of it, |w - p| what is lost and seen. */
    keep_most(&p->largest, tlm_length((rest + sqrt(lost)) * (rest + sqrt(lost))));
    keep_most(&p->largest, tlm_length(lost + seen));
}

void tlm_preview_build(const tlm_engine *engine, const tlm_bias *bias, tlm_preview *p,
                       tlm_scratch scratch)
{
    if (p->bits == 0)
        return;
    find_directions(engine, p->weight, p, scratch);
    float *row = tlm_scratch_take(&scratch, tlm_padded_floats(p->weight->in), sizeof *row);
    float *shares = tlm_scratch_take(&scratch, tlm_padded_floats(p->shares.in), sizeof *shares);
    float *more = tlm_scratch_take(&scratch, tlm_padded_floats(p->shares.in), sizeof *more);
    memset(p->words, 0xff, p->rows * sizeof *p->words);
    for (uint32_t i = 0; i < p->rows; i++)
        p->bias[i] = -INFINITY;
    for (uint32_t word = 0; word < p->weight->out; word++) {
        const uint32_t at = tlm_preview_row(p, word);
        p->words[at] = word;
        p->bias[at] = tlm_bias_at(bias, word);
        keep_most(&p->largest_bias, fabsf(p->bias[at]));
        tlm_look_up(p->weight, word, row, scratch);
        build_row(engine, p, at, row, shares, more);
    }
}
