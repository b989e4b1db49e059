/* The kernels in plain C: looked-up values, signs, centroids, and the sparse forms. */
#include "kernels_inside.h"

/* The nibble of row r among [rows / 2] bytes. */
static inline unsigned nibble_of(const uint8_t *bytes, uint32_t rows, uint32_t r)
{
    const uint32_t half = rows / 2;
    return r < half ? bytes[r] & 15u : (unsigned)bytes[r - half] >> 4;
}

void tlm_portable_codebook(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                           uint32_t row_end)
{
    const tlm_codebook *m = &w->u.codebook;
    const uint32_t quads = tlm_ceil_div(w->in, 4), bits = m->bits, count = 1u << bits;
    float shared[256];
    if (!m->per_row)
        for (uint32_t c = 0; c < count; c++)
            shared[c] = tlm_from_half(m->values[c]);
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row), half = rows / 2;
        const uint8_t *block = m->codes + (size_t)row * quads * bits / 2;
        float lists[16][TLM_BLOCK_ROWS];
        float sums[TLM_BLOCK_ROWS] = {0};
        if (m->per_row)
            for (uint32_t c = 0; c < count; c++)
                for (uint32_t r = 0; r < rows; r++)
                    lists[c][r] = tlm_from_half(m->values[(size_t)row * count + c * rows + r]);
        for (uint32_t quad = 0; quad < quads; quad++, block += (size_t)bits * half) {
            const uint32_t columns = tlm_least(4, w->in - 4 * quad);
            for (uint32_t r = 0; r < rows; r++) {
                uint32_t codes = 0; /* one a byte, a column each */
                for (uint32_t p = 0; p < bits; p++) {
                    const uint32_t nibble = nibble_of(block + (size_t)p * half, rows, r);
                    codes |= (nibble * 0x00204081u & 0x01010101u) << p;
                }
                for (uint32_t c = 0; c < columns; c++) {
                    const uint32_t code = codes >> 8 * c & 255u;
                    sums[r] += (m->per_row ? lists[code][r] : shared[code]) * in->x[4 * quad + c];
                }
            }
        }
        memcpy(y + row, sums, rows * sizeof *y);
    }
}

void tlm_portable_binary_codes(const tlm_matrix *w, const tlm_input *in, float *y,
                               uint32_t row_begin, uint32_t row_end)
{
    const tlm_binary_codes *m = &w->u.binary_codes;
    const uint32_t quads = tlm_ceil_div(w->in, 4), bits = m->bits;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row), half = rows / 2;
        const uint8_t *block = m->codes + (size_t)row * quads * bits / 2;
        const uint16_t *scales = m->scales + (size_t)row * m->groups * bits;
        float totals[TLM_BLOCK_ROWS] = {0};
        for (uint32_t g = 0; g < m->groups; g++) {
            const uint32_t begin = g * m->group;
            const uint32_t end = begin + tlm_least(m->group, w->in - begin);
            int64_t sums[4][TLM_BLOCK_ROWS] = {{0}};
            for (uint32_t quad = begin / 4; quad < tlm_ceil_div(end, 4); quad++) {
                const int8_t *q = in->q + 4 * quad;
                int16_t table[16]; /* the sums with each choice of signs */
                for (unsigned signs = 0; signs < 16; signs++) {
                    int sum = 0;
                    for (unsigned c = 0; c < 4; c++)
                        sum += signs >> c & 1u ? q[c] : -q[c];
                    table[signs] = (int16_t)sum;
                }
                for (uint32_t p = 0; p < bits; p++) {
                    const uint8_t *bytes = block + ((size_t)quad * bits + p) * half;
                    for (uint32_t r = 0; r < half; r++) {
                        sums[p][r] += table[bytes[r] & 15u];
                        sums[p][half + r] += table[bytes[r] >> 4];
                    }
                }
            }
            for (uint32_t p = 0; p < bits; p++, scales += rows)
                for (uint32_t r = 0; r < rows; r++)
                    totals[r] += (float)sums[p][r] * tlm_from_half(scales[r]);
        }
        for (uint32_t r = 0; r < rows; r++)
            y[row + r] = in->scale * totals[r];
    }
}

enum { TABLE_NUMBERS = 2048 };

void tlm_portable_product_codes(const tlm_matrix *w, const tlm_input *in, float *y,
                                uint32_t row_begin, uint32_t row_end)
{
    const tlm_product_codes *m = &w->u.product_codes;
    const uint32_t count = m->count, at_once = TABLE_NUMBERS / count;
    float tables[TABLE_NUMBERS];
    for (uint32_t first = 0; first < m->blocks; first += at_once) {
        const uint32_t last = tlm_least(first + at_once, m->blocks);
        for (uint32_t b = first; b < last; b++) {
            const uint16_t *centroids =
                m->centroids + (m->shared ? 0 : (size_t)b * count * m->size);
            const uint32_t columns = tlm_least(m->size, w->in - b * m->size);
            for (uint32_t c = 0; c < count; c++) {
                float sum = 0;
                for (uint32_t k = 0; k < columns; k++)
                    sum += tlm_from_half(centroids[c * m->size + k]) * in->x[b * m->size + k];
                tables[(b - first) * count + c] = sum;
            }
        }
        for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
            const uint32_t rows = tlm_rows_of_block(w, row);
            const uint32_t bytes = count == 16 ? rows / 2 : rows;
            const uint8_t *codes =
                m->codes + (size_t)row * m->blocks / (count == 16 ? 2 : 1) + (size_t)first * bytes;
            float sums[TLM_BLOCK_ROWS] = {0};
            for (uint32_t b = first; b < last; b++, codes += bytes) {
                const float *table = tables + (b - first) * count;
                if (count == 16) {
                    for (uint32_t r = 0; r < bytes; r++) {
                        sums[r] += table[codes[r] & 15u];
                        sums[bytes + r] += table[codes[r] >> 4];
                    }
                } else {
                    for (uint32_t r = 0; r < rows; r++)
                        sums[r] += table[codes[r]];
                }
            }
            for (uint32_t r = 0; r < rows; r++) {
                const float norm = m->norms ? tlm_from_half(m->norms[row + r]) : 1.0f;
                y[row + r] = (first ? y[row + r] : 0.0f) + norm * sums[r];
            }
        }
    }
}

/* Number `at` of stored floats. */
static inline float float_at(const tlm_stored_values *m, size_t at)
{
    return m->half ? tlm_from_half(((const uint16_t *)m->values)[at])
                   : ((const float *)m->values)[at];
}

static inline int32_t code_at(const tlm_stored_values *m, size_t at)
{
    if (m->bits == 8)
        return (int8_t)m->codes[at];
    return (int32_t)((unsigned)m->codes[at / 2] >> at % 2 * 4 & 15u) - 8;
}

/* The sums of a row block while its places come in order; any number of columns fits. */
typedef struct sums {
    float floats[TLM_BLOCK_ROWS];
    int64_t integers[TLM_BLOCK_ROWS];
} sums;

static inline void add_place(sums *s, const tlm_stored_values *stored, size_t value, uint32_t row,
                             const tlm_input *in, uint32_t column)
{
    if (stored->bits)
        s->integers[row] += code_at(stored, value) * in->q[column];
    else
        s->floats[row] += float_at(stored, value) * in->x[column];
}

static void write_sums(float *y, const sums *s, const tlm_stored_values *stored,
                       const tlm_input *in, uint32_t row, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++) {
        float sum = s->floats[i];
        if (stored->bits)
            sum = in->scale * ((float)s->integers[i] * tlm_from_half(stored->scales[row + i]));
        y[row + i] = sum;
    }
}

void tlm_portable_sparse(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                         uint32_t row_end)
{
    const tlm_sparse *m = &w->u.sparse;
    const unsigned greatest = m->coding == TLM_GAPS4 ? 15 : 255;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        const uint32_t *starts = m->starts + 2 * (row / TLM_BLOCK_ROWS);
        const uint8_t *positions = m->positions + starts[1];
        size_t value = starts[0];
        const size_t values_end = starts[2];
        sums s = {{0}, {0}};
        if (m->coding == TLM_BITMAP) {
            for (uint32_t column = 0; column < w->in; column++)
                for (uint32_t r = 0; r < rows; r += 8) {
                    unsigned byte = *positions++;
                    for (uint32_t at = r; byte; at++, byte >>= 1)
                        if (byte & 1u)
                            add_place(&s, &m->stored, value++, at, in, column);
                }
        } else {
            const size_t codes = (size_t)(starts[3] - starts[1]) * (greatest == 15 ? 2 : 1);
            uint32_t r = 0, column = 0;
            for (size_t c = 0; c < codes && value < values_end; c++) {
                const unsigned code = greatest == 15
                                          ? (unsigned)positions[c / 2] >> c % 2 * 4 & 15u
                                          : positions[c];
                for (r += code; r >= rows; r -= rows)
                    column++;
                if (code == greatest)
                    continue;
                add_place(&s, &m->stored, value++, r, in, column);
                if (++r == rows) {
                    r = 0;
                    column++;
                }
            }
        }
        write_sums(y, &s, &m->stored, in, row, rows);
    }
}

size_t tlm_stored_before(const tlm_matrix *w, uint32_t row, size_t *bit)
{
    const tlm_block_sparse *m = &w->u.block_sparse;
    *bit = (size_t)(row / m->high) * m->grid_columns;
    size_t stored = 0;
    for (size_t byte = 0; byte < *bit / 8; byte++)
        for (unsigned bits = m->bitmap[byte]; bits; bits &= bits - 1)
            stored++;
    for (unsigned bits = m->bitmap[*bit / 8] & ((1u << *bit % 8) - 1u); bits; bits &= bits - 1)
        stored++;
    return stored;
}

void tlm_portable_block_sparse(const tlm_matrix *w, const tlm_input *in, float *y,
                               uint32_t row_begin, uint32_t row_end)
{
    const tlm_block_sparse *m = &w->u.block_sparse;
    const uint32_t high = m->high, wide = m->wide, together = wide < 4 ? wide : 4;
    const uint32_t last = tlm_least(row_end, w->out);
    size_t bit, stored = tlm_stored_before(w, row_begin, &bit);
    for (uint32_t row = row_begin; row < last; row += high) {
        sums s = {{0}, {0}};
        for (uint32_t begin = 0; begin < w->in; begin += wide, bit++) {
            if (!((unsigned)m->bitmap[bit / 8] >> bit % 8 & 1u))
                continue;
            const size_t first = stored++ * (size_t)high * wide;
            const uint32_t columns = tlm_least(wide, w->in - begin);
            for (uint32_t c = 0; c < columns; c++)
                for (uint32_t r = 0; r < high; r++) {
                    const size_t at =
                        first + ((size_t)(c / together) * high + r) * together + c % together;
                    add_place(&s, &m->stored, at, r, in, begin + c);
                }
        }
        write_sums(y, &s, &m->stored, in, row, tlm_least(high, last - row));
    }
}
