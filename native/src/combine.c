/* Numbers of coded matrices, one by one and four columns of a row block at a time. */
#include "kernels_inside.h"
#include "product.h"

/* What is the same for a row block. */
typedef struct block {
    uint32_t first; /* row */
    uint32_t rows;  /* padding included */
} block;

static block block_of(const tlm_matrix *w, uint32_t row)
{
    const uint32_t first = row / TLM_BLOCK_ROWS * TLM_BLOCK_ROWS;
    return (block){first, tlm_rows_of_block(w, first)};
}

/* The codes of columns quad .. quad + 3, [rows][4], less what was added to them. */
static void quad_levels(const tlm_matrix *w, block b, uint32_t quad, uint32_t begin, uint32_t end,
                        int8_t *out)
{
    const tlm_quantized *m = &w->u.quantized;
    const size_t run = (size_t)b.rows * 4;
    const uint8_t *codes =
        m->codes + (size_t)b.first * tlm_runs(w->in, m->bits) * 4 + (size_t)begin * 4;
    const int32_t offset = tlm_code_offset(m->bits);
    const uint32_t count = 4 * (end - begin);
    if (m->bits == 8 && count == 4) {
        memcpy(out, codes + quad / 4 * run, 4); /* no call */
    } else if (m->bits == 8) {
        memcpy(out, codes + quad / 4 * run, count);
    } else if (m->bits == 4) {
        const uint8_t *at = codes + quad / 8 * run;
        const int shift = (int)(quad % 8);
        for (uint32_t i = 0; i < count; i++)
            out[i] = (int8_t)((at[i] >> shift & 15) - offset);
    } else if (m->bits == 2) {
        const uint8_t *at = codes + quad / 16 * run;
        const int shift = (int)(quad % 16 / 2);
        for (uint32_t i = 0; i < count; i++)
            out[i] = (int8_t)((at[i] >> shift & 3) - offset);
    } else {
        const uint8_t *high = codes + quad / 32 * 3 * run;
        const uint8_t *low = high + (1 + quad % 32 / 16) * run;
        const int by_two = (int)(quad % 16 / 2), by_one = (int)(quad % 32 / 4);
        for (uint32_t i = 0; i < count; i++)
            out[i] = (int8_t)(((low[i] >> by_two & 3) | (high[i] >> by_one & 1) << 2) - offset);
    }
}

static size_t scale_at(const tlm_quantized *m, block b, uint32_t row, uint32_t quad)
{
    return m->group ? (size_t)b.first * m->groups + quad / m->group * b.rows + row : 0;
}

/* The numbers of columns quad .. quad + 3 of rows [begin, end) of a block of any coded form. */
static void tile(const tlm_matrix *w, block b, uint32_t quad, uint32_t begin, uint32_t end,
                 float *out)
{
    if (w->form == TLM_QUANTIZED) {
        const tlm_quantized *m = &w->u.quantized;
        int8_t levels[4 * TLM_BLOCK_ROWS];
        quad_levels(w, b, quad, begin, end, levels);
        for (uint32_t row = begin; row < end; row++) {
            const size_t at = scale_at(m, b, row, quad);
            const float scale = tlm_from_half(m->scales[at]);
            const int32_t zero = m->zeros ? m->zeros[at] : 0;
            for (uint32_t c = 0; c < 4; c++) {
                const int32_t level = levels[4 * (row - begin) + c];
                *out++ = scale * (float)(m->mid_rise ? 2 * level + 1 : level - zero);
            }
        }
        return;
    }
    const bool binary = w->form == TLM_BINARY_CODES;
    const tlm_codebook *book = &w->u.codebook;
    const tlm_binary_codes *signs = &w->u.binary_codes;
    const uint32_t bits = binary ? signs->bits : book->bits, half = b.rows / 2;
    const uint8_t *codes = (binary ? signs->codes : book->codes) +
                           (size_t)b.first * tlm_ceil_div(w->in, 4) * bits / 2 +
                           (size_t)quad / 4 * bits * half;
    for (uint32_t row = begin; row < end; row++)
        for (uint32_t c = 0; c < 4; c++) {
            unsigned code = 0;
            float sum = 0;
            for (uint32_t p = 0; p < bits; p++) {
                const unsigned byte = codes[p * half + row % half];
                const unsigned bit = byte >> (row < half ? 0 : 4) >> c & 1u;
                code |= bit << p;
                if (binary) {
                    const size_t group = (size_t)(quad / signs->group) * bits + p;
                    const float scale = tlm_from_half(
                        signs->scales[(size_t)b.first * signs->groups * bits + group * b.rows + row]);
                    sum += bit ? scale : -scale;
                }
            }
            if (!binary)
                sum = tlm_from_half(
                    book->per_row
                        ? book->values[((size_t)b.first << bits) + (size_t)code * b.rows + row]
                        : book->values[code]);
            *out++ = sum;
        }
}

static float product_number(const tlm_matrix *w, uint32_t row, uint32_t column)
{
    const tlm_product_codes *m = &w->u.product_codes;
    const block b = block_of(w, row);
    const uint32_t at = column / m->size, i = row - b.first, half = b.rows / 2;
    unsigned code;
    if (m->count == 16)
        code = (unsigned)m->codes[(size_t)b.first * m->blocks / 2 + (size_t)at * half + i % half] >>
                   (i < half ? 0 : 4) & 15u;
    else
        code = m->codes[(size_t)b.first * m->blocks + (size_t)at * b.rows + i];
    const size_t list = m->shared ? 0 : (size_t)at * m->count * m->size;
    const float norm = m->norms ? tlm_from_half(m->norms[row]) : 1.0f;
    return norm * tlm_from_half(m->centroids[list + (size_t)code * m->size + column % m->size]);
}

/* The codes of a row lie far apart: asked for all at once, they do not wait for each other. */
static void ask_for_row(const tlm_matrix *w, block b, uint32_t row)
{
#if defined(__GNUC__)
    const size_t runs = tlm_runs(w->in, w->u.quantized.bits);
    const uint8_t *at = w->u.quantized.codes + b.first * runs * 4 + (row - b.first) * (size_t)4;
    for (size_t i = 0; i < runs; i++)
        __builtin_prefetch(at + i * b.rows * 4);
#endif
}

void tlm_look_up_coded(const tlm_matrix *w, uint32_t row, float *out)
{
    if (w->form == TLM_PRODUCT_CODES) {
        for (uint32_t k = 0; k < w->in; k++)
            out[k] = product_number(w, row, k);
        return;
    }
    const block b = block_of(w, row);
    if (w->form == TLM_QUANTIZED)
        ask_for_row(w, b, row);
    for (uint32_t quad = 0; quad < w->in; quad += 4) /* out has room for whole quads */
        tile(w, b, quad, row - b.first, row - b.first + 1, out + quad);
}

static void combine_dense(const tlm_matrix *w, const float *weights, float *out)
{
    for (uint32_t r = 0; r < w->out; r++) {
        const size_t at = (size_t)r * w->in;
        if (w->u.dense.half)
            for (uint32_t k = 0; k < w->in; k++)
                out[k] += weights[r] * tlm_from_half(((const uint16_t *)w->u.dense.values)[at + k]);
        else
            for (uint32_t k = 0; k < w->in; k++)
                out[k] += weights[r] * ((const float *)w->u.dense.values)[at + k];
    }
}

enum { LANES = 16 };

/* Scale and weight of a row are multiplied once a group, and what all columns of a group share
   (zero points, the one of mid-rise levels) is added once. */
static void combine_quantized(const tlm_matrix *w, const float *weights, float *out)
{
    const tlm_quantized *m = &w->u.quantized;
    const uint32_t group = m->group ? m->group : w->in;
    for (uint32_t first = 0; first < w->out; first += TLM_BLOCK_ROWS) {
        const block b = block_of(w, first);
        const uint32_t rows = tlm_least(b.rows, w->out - first);
        for (uint32_t begin = 0; begin < w->in; begin += group) {
            const uint32_t end = begin + tlm_least(group, w->in - begin);
            float factors[4 * TLM_BLOCK_ROWS] = {0}, shared = 0; /* 0 in the padding */
            for (uint32_t r = 0; r < rows; r++) {
                const size_t at = scale_at(m, b, r, begin);
                const float factor = weights[first + r] * tlm_from_half(m->scales[at]);
                shared += m->mid_rise ? factor : m->zeros ? -factor * (float)m->zeros[at] : 0.0f;
                for (uint32_t c = 0; c < 4; c++)
                    factors[4 * r + c] = m->mid_rise ? 2 * factor : factor;
            }
            for (uint32_t quad = begin; quad < end; quad += 4) {
                int8_t levels[4 * TLM_BLOCK_ROWS];
                float sums[LANES] = {0};
                quad_levels(w, b, quad, 0, b.rows, levels);
                for (uint32_t i = 0; i < 4 * b.rows; i += LANES)
                    for (uint32_t j = 0; j < LANES; j++)
                        sums[j] += factors[i + j] * (float)levels[i + j];
                for (uint32_t c = 0; c < 4 && quad + c < end; c++)
                    out[quad + c] += shared + sums[c] + sums[4 + c] + sums[8 + c] + sums[12 + c];
            }
        }
    }
}

void tlm_add_scaled(float *restrict to, const float *restrict from, float scale, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] += scale * from[i];
}

void tlm_combine_leaf(const tlm_matrix *w, const float *weights, float *out)
{
    if (w->form == TLM_DENSE) {
        combine_dense(w, weights, out);
        return;
    }
    if (w->form == TLM_PRODUCT_CODES) {
        for (uint32_t r = 0; r < w->out; r++)
            for (uint32_t k = 0; k < w->in; k++)
                out[k] += weights[r] * product_number(w, r, k);
        return;
    }
    if (w->form == TLM_QUANTIZED) {
        combine_quantized(w, weights, out);
        return;
    }
    if (w->form != TLM_CODEBOOK && w->form != TLM_BINARY_CODES) {
        tlm_combine_sparse(w, weights, out);
        return;
    }
    for (uint32_t first = 0; first < w->out; first += TLM_BLOCK_ROWS) {
        const block b = block_of(w, first);
        const uint32_t rows = tlm_least(b.rows, w->out - first);
        for (uint32_t quad = 0; quad < w->in; quad += 4) {
            float numbers[4 * TLM_BLOCK_ROWS], sums[4] = {0};
            tile(w, b, quad, 0, rows, numbers);
            for (uint32_t r = 0; r < rows; r++)
                for (uint32_t c = 0; c < 4; c++)
                    sums[c] += weights[first + r] * numbers[4 * r + c];
            for (uint32_t c = 0; c < 4 && quad + c < w->in; c++)
                out[quad + c] += sums[c];
        }
    }
}
