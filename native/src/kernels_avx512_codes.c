/* Looked-up values and centroids with AVX-512; for binary codes it is no faster than AVX2. The last
   row block, where it is not whole, goes to the AVX2 kernels. */
#include "kernels_avx512.h"

#if TLM_X86

enum { HALF = TLM_BLOCK_ROWS / 2 };

/* Sixteen bytes, each of two rows, a lane each. */
INLINE __m512i bytes(const uint8_t *at)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Bit 8 p + 4 h + c of a lane goes to bit 8 c + 4 h + p: nibbles of columns become codes. */
INLINE __m512i transposed(__m512i v)
{
    __m512i t = _mm512_and_si512(_mm512_xor_si512(_mm512_srli_epi32(v, 7), v), _mm512_set1_epi32(0x00aa00aa));
    v = _mm512_xor_si512(v, _mm512_xor_si512(t, _mm512_slli_epi32(t, 7)));
    t = _mm512_and_si512(_mm512_xor_si512(_mm512_srli_epi32(v, 14), v), _mm512_set1_epi32(0x0000cccc));
    return _mm512_xor_si512(v, _mm512_xor_si512(t, _mm512_slli_epi32(t, 14)));
}

/* Planes `first` to `last`, at most four, of sixteen bytes of a quad. */
INLINE __m512i planes(const uint8_t *at, int first, int last)
{
    __m512i v = bytes(at + (size_t)first * HALF);
    UNROLL for (int p = first + 1; p < last; p++)
        v = _mm512_or_si512(v, _mm512_slli_epi32(bytes(at + (size_t)p * HALF), 8 * (unsigned)(p - first)));
    return transposed(v);
}

/* One of the values that each row has of its own, [2^bits][64], by the bits of its code. */
INLINE __m512 own_value(__m512i code, int bits, const float *list)
{
    __m512 v[4];
    __mmask16 bit = _mm512_test_epi32_mask(code, _mm512_set1_epi32(1));
    int left = bits == 2 ? 2 : 4;
    UNROLL for (int i = 0; i < left; i++)
        v[i] = _mm512_mask_blend_ps(bit, _mm512_loadu_ps(list + 2 * i * (int)TLM_BLOCK_ROWS),
                                    _mm512_loadu_ps(list + (2 * i + 1) * (int)TLM_BLOCK_ROWS));
    UNROLL for (int level = 1; level < bits; level++) {
        bit = _mm512_test_epi32_mask(code, _mm512_set1_epi32(1 << level));
        left /= 2;
        UNROLL for (int i = 0; i < left; i++)
            v[i] = _mm512_mask_blend_ps(bit, v[2 * i], v[2 * i + 1]);
    }
    return v[0];
}

INLINE void codebook_rows(const uint8_t *at, uint32_t columns, const float *x, int bits, bool per_row,
                          const float *list, float *y)
{
    const __m512i mask = _mm512_set1_epi32(15);
    const __m512 low = _mm512_loadu_ps(list), high = _mm512_loadu_ps(list + 16);
    __m512 s[2][2] = {{_mm512_setzero_ps(), _mm512_setzero_ps()}, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
    for (uint32_t k = 0; k < columns; k += 4, at += (size_t)bits * HALF) {
        float part[4] = {0};
        memcpy(part, x + k, tlm_least(4, columns - k) * sizeof *x);
        const __m512i v = planes(at, 0, bits < 4 ? bits : 4);
        const __m512i over = bits > 4 ? planes(at, 4, bits) : v;
        UNROLL for (int c = 0; c < 4; c++) {
            const __m512 by = _mm512_set1_ps(part[c]);
            UNROLL for (int h = 0; h < 2; h++) {
                __m512i code = _mm512_srli_epi32(v, (unsigned)(8 * c + 4 * h));
                __m512 value;
                if (bits > 4)
                    code = _mm512_or_si512(
                        _mm512_and_si512(code, mask),
                        _mm512_slli_epi32(
                            _mm512_and_si512(_mm512_srli_epi32(over, (unsigned)(8 * c + 4 * h)), mask), 4));
                if (per_row)
                    value = own_value(code, bits, list + h * HALF);
                else if (bits <= 4) /* the bits above the lowest four are not looked at */
                    value = _mm512_permutexvar_ps(code, low);
                else if (bits == 5)
                    value = _mm512_permutex2var_ps(low, code, high);
                else
                    value = _mm512_i32gather_ps(code, list, 4);
                s[h][c % 2] = _mm512_fmadd_ps(value, by, s[h][c % 2]);
            }
        }
    }
    _mm512_storeu_ps(y, _mm512_add_ps(s[0][0], s[0][1]));
    _mm512_storeu_ps(y + HALF, _mm512_add_ps(s[1][0], s[1][1]));
}

typedef void code_rows(const uint8_t *at, uint32_t columns, const float *x, const float *list, float *y);
#define ROWS(bits, per_row)                                                                     \
    TARGET static void rows_##bits##_##per_row(const uint8_t *at, uint32_t columns,             \
                                               const float *x, const float *list, float *y)     \
    {                                                                                           \
        codebook_rows(at, columns, x, bits, per_row, list, y);                                  \
    }
ROWS(1, 0) ROWS(2, 0) ROWS(3, 0) ROWS(4, 0) ROWS(5, 0) ROWS(6, 0) ROWS(7, 0) ROWS(8, 0)
ROWS(2, 1) ROWS(3, 1)

TARGET void tlm_avx512_codebook(const tlm_matrix *w, const tlm_input *in, float *y,
                                uint32_t row_begin, uint32_t row_end)
{
    static code_rows *const SHARED[] = {rows_1_0, rows_2_0, rows_3_0, rows_4_0,
                                        rows_5_0, rows_6_0, rows_7_0, rows_8_0};
    static code_rows *const OWN[] = {rows_2_1, rows_3_1};
    const tlm_codebook *m = &w->u.codebook;
    const uint32_t quads = tlm_ceil_div(w->in, 4), count = 1u << m->bits;
    if (m->per_row && m->bits == 4) { /* as fast there, and large here */
        tlm_avx2_codebook(w, in, y, row_begin, row_end);
        return;
    }
    code_rows *const product = m->per_row ? OWN[m->bits - 2] : SHARED[m->bits - 1];
    float lists[8 * TLM_BLOCK_ROWS];
    if (!m->per_row)
        for (uint32_t c = 0; c < 256; c++)
            lists[c] = c < count ? tlm_from_half(m->values[c]) : 0.0f;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        if (tlm_rows_of_block(w, row) < TLM_BLOCK_ROWS) {
            tlm_avx2_codebook(w, in, y, row, row_end);
            return;
        }
        const uint8_t *block = m->codes + (size_t)row * quads * m->bits / 2;
        for (uint32_t i = 0; m->per_row && i < count * TLM_BLOCK_ROWS; i += 16)
            _mm512_storeu_ps(lists + i, halves(m->values + (size_t)row * count + i));
        for (uint32_t r = 0; r < HALF; r += 16)
            product(block + r, w->in, in->x, lists + (m->per_row ? r : 0), y + row + r);
    }
}

INLINE void chains16(__m512 *s, const uint8_t *codes, const float *tables, uint32_t blocks)
{
    for (uint32_t b = 0; b < blocks; b++, codes += HALF, tables += 16) {
        const __m512 table = _mm512_loadu_ps(tables);
        UNROLL for (int i = 0; i < 2; i++) {
            const __m512i code = bytes(codes + 16 * i);
            s[i] = _mm512_add_ps(s[i], _mm512_permutexvar_ps(code, table));
            s[2 + i] = _mm512_add_ps(s[2 + i], _mm512_permutexvar_ps(_mm512_srli_epi32(code, 4), table));
        }
    }
}

INLINE void chains256(__m512 *s, const uint8_t *codes, const float *tables, uint32_t blocks)
{
    for (uint32_t b = 0; b < blocks; b++, codes += TLM_BLOCK_ROWS, tables += 256)
        UNROLL for (int i = 0; i < 4; i++)
            s[i] = _mm512_add_ps(s[i], _mm512_i32gather_ps(bytes(codes + 16 * i), tables, 4));
}

TARGET void tlm_avx512_product_codes(const tlm_matrix *w, const tlm_input *in, float *y,
                                     uint32_t row_begin, uint32_t row_end)
{
    enum { NUMBERS = 4096 };
    const tlm_product_codes *m = &w->u.product_codes;
    const uint32_t count = m->count, at_once = NUMBERS / count, wide = count == 16 ? HALF : TLM_BLOCK_ROWS;
    const uint32_t end = tlm_least(row_end, w->out), padded = tlm_padded_rows(w->out);
    /* Where the whole blocks end; the last rows may be filled up to one. */
    const uint32_t whole = end == w->out ? padded : end;
    const uint32_t stop = whole - (whole - row_begin) % TLM_BLOCK_ROWS;
    float tables[NUMBERS];
    for (uint32_t first = 0; first < m->blocks && stop > row_begin; first += at_once) {
        const uint32_t last = tlm_least(first + at_once, m->blocks);
        for (uint32_t b = first; b < last; b++)
            tlm_avx2_table(tables + (b - first) * count,
                           m->centroids + (m->shared ? 0 : (size_t)b * count * m->size), count,
                           m->size, in->x + (size_t)b * m->size, tlm_least(m->size, w->in - b * m->size));
        for (uint32_t row = row_begin; row < stop; row += TLM_BLOCK_ROWS) {
            const uint8_t *codes =
                m->codes + (size_t)row * m->blocks / (count == 16 ? 2 : 1) + (size_t)first * wide;
            __m512 s[4];
            UNROLL for (int i = 0; i < 4; i++) s[i] = _mm512_setzero_ps();
            if (count == 16)
                chains16(s, codes, tables, last - first);
            else
                chains256(s, codes, tables, last - first);
            UNROLL for (int i = 0; i < 4; i++) {
                float *to = y + row + 16 * i;
                const __m512 before = first ? _mm512_loadu_ps(to) : _mm512_setzero_ps();
                const __m512 norm = m->norms ? halves(m->norms + row + 16 * i) : _mm512_set1_ps(1.0f);
                _mm512_storeu_ps(to, _mm512_fmadd_ps(norm, s[i], before));
            }
        }
    }
    if (stop < row_end)
        tlm_avx2_product_codes(w, in, y, stop, row_end);
}

#endif
