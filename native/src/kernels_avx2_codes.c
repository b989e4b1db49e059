/* Looked-up values, signs and centroids with AVX2. */
#include "kernels_avx2.h"

#if TLM_X86

/* Eight bytes, each of two rows, a lane each. */
INLINE __m256i bytes(const uint8_t *at)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
}

/* Bit 8 p + 4 h + c of a lane goes to bit 8 c + 4 h + p: nibbles of columns become codes. */
INLINE __m256i transposed(__m256i v)
{
    __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi32(v, 7), v), _mm256_set1_epi32(0x00aa00aa));
    v = _mm256_xor_si256(v, _mm256_xor_si256(t, _mm256_slli_epi32(t, 7)));
    t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi32(v, 14), v), _mm256_set1_epi32(0x0000cccc));
    return _mm256_xor_si256(v, _mm256_xor_si256(t, _mm256_slli_epi32(t, 14)));
}

/* Planes `first` to `last`, at most four, of eight bytes of a quad. */
INLINE __m256i planes(const uint8_t *at, uint32_t half, int first, int last)
{
    __m256i v = bytes(at + (size_t)first * half);
    UNROLL for (int p = first + 1; p < last; p++)
        v = _mm256_or_si256(v, _mm256_slli_epi32(bytes(at + (size_t)p * half), 8 * (p - first)));
    return transposed(v);
}

/* `list`: [256] for all, or [16][rows] from the first of the eight rows on. */
INLINE __m256 value_of(__m256i code, int bits, bool per_row, const float *list, uint32_t rows,
                       __m256 low, __m256 high)
{
    if (per_row) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i at = _mm256_mullo_epi16(code, _mm256_set1_epi32((int)rows));
        return _mm256_i32gather_ps(list, _mm256_add_epi32(at, lane), 4);
    }
    if (bits <= 3)
        return _mm256_permutevar8x32_ps(low, code);
    if (bits == 4)
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code),
                                _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
    return _mm256_i32gather_ps(list, code, 4);
}

INLINE void codebook_rows(const uint8_t *at, uint32_t rows, uint32_t columns, const float *x, int bits,
                          bool per_row, const float *list, float *y)
{
    const uint32_t half = rows / 2;
    const __m256i mask = _mm256_set1_epi32(15);
    const __m256 low = _mm256_loadu_ps(list), high = _mm256_loadu_ps(list + 8);
    __m256 s[2][2] = {{_mm256_setzero_ps(), _mm256_setzero_ps()}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
    for (uint32_t k = 0; k < columns; k += 4, at += (size_t)bits * half) {
        float part[4] = {0};
        memcpy(part, x + k, tlm_least(4, columns - k) * sizeof *x);
        const __m256i v = planes(at, half, 0, bits < 4 ? bits : 4);
        const __m256i over = bits > 4 ? planes(at, half, 4, bits) : v;
        UNROLL for (int c = 0; c < 4; c++) {
            const __m256 by = _mm256_set1_ps(part[c]);
            UNROLL for (int h = 0; h < 2; h++) {
                __m256i code = _mm256_and_si256(_mm256_srli_epi32(v, 8 * c + 4 * h), mask);
                if (bits > 4)
                    code = _mm256_or_si256(code, _mm256_slli_epi32(_mm256_and_si256(
                               _mm256_srli_epi32(over, 8 * c + 4 * h), mask), 4));
                const __m256 value = value_of(code, bits, per_row, list + (per_row && h ? half : 0), rows, low, high);
                s[h][c % 2] = _mm256_fmadd_ps(value, by, s[h][c % 2]);
            }
        }
    }
    _mm256_storeu_ps(y, _mm256_add_ps(s[0][0], s[0][1]));
    _mm256_storeu_ps(y + half, _mm256_add_ps(s[1][0], s[1][1]));
}

typedef void code_rows(const uint8_t *at, uint32_t rows, uint32_t columns, const float *x,
                       const float *list, float *y);
#define ROWS(bits, per_row)                                                                      \
    TARGET static void rows_##bits##_##per_row(const uint8_t *at, uint32_t rows, uint32_t columns, \
                                               const float *x, const float *list, float *y)      \
    {                                                                                            \
        codebook_rows(at, rows, columns, x, bits, per_row, list, y);                             \
    }
ROWS(1, 0) ROWS(2, 0) ROWS(3, 0) ROWS(4, 0) ROWS(5, 0) ROWS(6, 0) ROWS(7, 0) ROWS(8, 0)
ROWS(2, 1) ROWS(3, 1) ROWS(4, 1)

TARGET void tlm_avx2_codebook(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                              uint32_t row_end)
{
    static code_rows *const SHARED[] = {rows_1_0, rows_2_0, rows_3_0, rows_4_0,
                                        rows_5_0, rows_6_0, rows_7_0, rows_8_0};
    static code_rows *const OWN[] = {rows_2_1, rows_3_1, rows_4_1};
    const tlm_codebook *m = &w->u.codebook;
    const uint32_t quads = tlm_ceil_div(w->in, 4), count = 1u << m->bits;
    code_rows *const product = m->per_row ? OWN[m->bits - 2] : SHARED[m->bits - 1];
    float lists[16 * TLM_BLOCK_ROWS];
    if (!m->per_row)
        for (uint32_t c = 0; c < 256; c++)
            lists[c] = c < count ? tlm_from_half(m->values[c]) : 0.0f;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        const uint8_t *block = m->codes + (size_t)row * quads * m->bits / 2;
        for (uint32_t i = 0; m->per_row && i < count * rows; i += 8)
            _mm256_storeu_ps(lists + i, halves(m->values + (size_t)row * count + i));
        for (uint32_t r = 0; r < rows / 2; r += 8)
            product(block + r, rows, w->in, in->x, lists + (m->per_row ? r : 0), y + row + r);
    }
}

enum { TABLES = 512, QUADS = 64 }; /* tables kept; quads whose sums fit 16 bits: 64 * 508 */

/* The sums of four inputs with each choice of signs: 16 low bytes, 16 high ones. */
INLINE void sign_table(uint8_t *table, const int8_t *q)
{
    const __m256i number = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m256i sum = _mm256_set1_epi16((int16_t)-(q[0] + q[1] + q[2] + q[3]));
    UNROLL for (int c = 0; c < 4; c++) {
        const __m256i bit = _mm256_set1_epi16((int16_t)(1 << c));
        const __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(number, bit), bit);
        sum = _mm256_add_epi16(sum, _mm256_and_si256(set, _mm256_set1_epi16((int16_t)(2 * q[c]))));
    }
    const __m256i both = _mm256_packus_epi16(_mm256_and_si256(sum, _mm256_set1_epi16(255)),
                                             _mm256_srli_epi16(sum, 8));
    _mm256_storeu_si256((__m256i *)(void *)table, _mm256_permute4x64_epi64(both, 0xd8));
}

INLINE void add_words(int32_t *sums, __m128i words)
{
    __m256i *at = (__m256i *)(void *)sums;
    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), _mm256_cvtepi16_epi32(words)));
}

/* Up to QUADS quads of one plane of a whole block. */
TARGET static void add_signs(int32_t *sums, const uint8_t *at, size_t step, const uint8_t *table,
                             uint32_t quads)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i s[4];
    for (int i = 0; i < 4; i++)
        s[i] = _mm256_setzero_si256();
    for (uint32_t k = 0; k < quads; k++, at += step, table += 32) {
        const __m256i w = load(at), both = load(table);
        const __m256i low = _mm256_permute4x64_epi64(both, 0x44), high = _mm256_permute4x64_epi64(both, 0xee);
        UNROLL for (int h = 0; h < 2; h++) {
            const __m256i nibbles = _mm256_and_si256(h ? _mm256_srli_epi16(w, 4) : w, mask);
            const __m256i a = _mm256_shuffle_epi8(low, nibbles), b = _mm256_shuffle_epi8(high, nibbles);
            s[2 * h] = _mm256_add_epi16(s[2 * h], _mm256_unpacklo_epi8(a, b));
            s[2 * h + 1] = _mm256_add_epi16(s[2 * h + 1], _mm256_unpackhi_epi8(a, b));
        }
    }
    for (int i = 0; i < 4; i++) { /* unpacking leaves rows 0 to 7 and 16 to 23 together */
        int32_t *to = sums + 32 * (i / 2) + 8 * (i % 2);
        add_words(to, _mm256_castsi256_si128(s[i]));
        add_words(to + 16, _mm256_extracti128_si256(s[i], 1));
    }
}

TARGET void tlm_avx2_binary_codes(const tlm_matrix *w, const tlm_input *in, float *y,
                                  uint32_t row_begin, uint32_t row_end)
{
    const tlm_binary_codes *m = &w->u.binary_codes;
    const uint32_t quads = tlm_ceil_div(w->in, 4), bits = m->bits;
    if (w->in > 1u << 24) { /* sums might not fit 32 bits */
        tlm_portable_binary_codes(w, in, y, row_begin, row_end);
        return;
    }
    uint8_t tables[TABLES * 32];
    for (uint32_t k = 0; quads <= TABLES && k < quads; k++)
        sign_table(tables + 32 * (size_t)k, in->q + 4 * k);
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        if (tlm_rows_of_block(w, row) < TLM_BLOCK_ROWS) {
            tlm_portable_binary_codes(w, in, y, row, row_end);
            return;
        }
        const uint8_t *block = m->codes + (size_t)row * quads * bits / 2;
        const uint16_t *scales = m->scales + (size_t)row * m->groups * bits;
        __m256 totals[8];
        for (int i = 0; i < 8; i++)
            totals[i] = _mm256_setzero_ps();
        for (uint32_t g = 0; g < m->groups; g++) {
            const uint32_t begin = g * m->group, end = begin + tlm_least(m->group, w->in - begin);
            const uint32_t last = tlm_ceil_div(end, 4);
            int32_t sums[4][TLM_BLOCK_ROWS] = {{0}};
            for (uint32_t k = begin / 4, some; k < last; k += some) {
                some = tlm_least(QUADS, last - k);
                const uint8_t *table = tables + (quads <= TABLES ? 32 * (size_t)k : 0);
                for (uint32_t i = 0; quads > TABLES && i < some; i++)
                    sign_table(tables + 32 * (size_t)i, in->q + 4 * (k + i));
                for (uint32_t p = 0; p < bits; p++)
                    add_signs(sums[p], block + ((size_t)k * bits + p) * 32, (size_t)bits * 32, table, some);
            }
            for (uint32_t p = 0; p < bits; p++, scales += TLM_BLOCK_ROWS)
                for (int i = 0; i < 8; i++)
                    totals[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(load(sums[p] + 8 * i)),
                                                halves(scales + 8 * i), totals[i]);
        }
        for (int i = 0; i < 8; i++)
            _mm256_storeu_ps(y + row + 8 * i, _mm256_mul_ps(_mm256_set1_ps(in->scale), totals[i]));
    }
}

TARGET void tlm_avx2_table(float *table, const uint16_t *centroids, uint32_t count, uint32_t size,
                           const float *x, uint32_t columns)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_set1_epi32(0xffff), step = _mm256_set1_epi32((int)size);
    for (uint32_t c = 0; c < count; c += 8) {
        const uint16_t *at = centroids + (size_t)c * size;
        __m256 sum = _mm256_setzero_ps();
        if (size == 1) {
            _mm256_storeu_ps(table + c, _mm256_mul_ps(halves(at), _mm256_set1_ps(x[0])));
            continue;
        }
        for (uint32_t k = 0; k < columns; k += 2) {
            /* Two columns of eight centroids; the last one of an odd size is the second of two. */
            const bool odd = k + 1 == size;
            const __m256i two = _mm256_i32gather_epi32((const int *)(const void *)(at + k - odd),
                                                       _mm256_mullo_epi32(lane, step), 2);
            const __m256i apart = _mm256_permute4x64_epi64(
                _mm256_packus_epi32(_mm256_and_si256(two, low), _mm256_srli_epi32(two, 16)), 0xd8);
            const __m256 first = _mm256_cvtph_ps(_mm256_castsi256_si128(apart));
            const __m256 second = _mm256_cvtph_ps(_mm256_extracti128_si256(apart, 1));
            sum = _mm256_fmadd_ps(odd ? second : first, _mm256_set1_ps(x[k]), sum);
            if (k + 1 < columns)
                sum = _mm256_fmadd_ps(second, _mm256_set1_ps(x[k + 1]), sum);
        }
        _mm256_storeu_ps(table + c, sum);
    }
}

INLINE __m256 of_16(const float *table, __m256i code)
{
    return value_of(code, 4, false, table, 0, _mm256_loadu_ps(table), _mm256_loadu_ps(table + 8));
}

TARGET void tlm_avx2_product_codes(const tlm_matrix *w, const tlm_input *in, float *y,
                                   uint32_t row_begin, uint32_t row_end)
{
    enum { NUMBERS = 4096 };
    const tlm_product_codes *m = &w->u.product_codes;
    const uint32_t count = m->count, at_once = NUMBERS / count;
    float tables[NUMBERS];
    for (uint32_t first = 0; first < m->blocks; first += at_once) {
        const uint32_t last = tlm_least(first + at_once, m->blocks);
        for (uint32_t b = first; b < last; b++)
            tlm_avx2_table(tables + (b - first) * count,
                           m->centroids + (m->shared ? 0 : (size_t)b * count * m->size), count,
                           m->size, in->x + (size_t)b * m->size, tlm_least(m->size, w->in - b * m->size));
        for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
            const uint32_t rows = tlm_rows_of_block(w, row), wide = count == 16 ? rows / 2 : rows;
            const uint8_t *codes =
                m->codes + (size_t)row * m->blocks / (count == 16 ? 2 : 1) + (size_t)first * wide;
            __m256 sums[8];
            for (int i = 0; i < 8; i++)
                sums[i] = _mm256_setzero_ps();
            for (uint32_t b = first; b < last; b++, codes += wide) {
                const float *table = tables + (b - first) * count;
                for (uint32_t r = 0; r < wide; r += 8) {
                    const __m256i code = bytes(codes + r);
                    if (count == 16) {
                        __m256 *over = sums + (wide + r) / 8;
                        sums[r / 8] = _mm256_add_ps(sums[r / 8], of_16(table, code));
                        *over = _mm256_add_ps(*over, of_16(table, _mm256_srli_epi32(code, 4)));
                    } else {
                        sums[r / 8] = _mm256_add_ps(sums[r / 8], _mm256_i32gather_ps(table, code, 4));
                    }
                }
            }
            for (uint32_t r = 0; r < rows; r += 8) {
                const __m256 before = first ? _mm256_loadu_ps(y + row + r) : _mm256_setzero_ps();
                const __m256 norm = m->norms ? halves(m->norms + row + r) : _mm256_set1_ps(1.0f);
                _mm256_storeu_ps(y + row + r, _mm256_fmadd_ps(norm, sums[r / 8], before));
            }
        }
    }
}

#endif
