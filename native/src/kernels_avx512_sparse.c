/* Sparse bitmaps with AVX-512: a column of a row block is a mask of 64 rows, and the values stored
   are expanded to their places. What else is sparse goes to the AVX2 kernels. */
#include "kernels_avx512.h"

#if TLM_X86

enum { FLOATS, HALVES, BYTES, NIBBLES };

INLINE __m512 floats_at(const tlm_stored_values *m, int kind, size_t at, uint32_t count, __mmask16 mask)
{
    if (kind == FLOATS)
        return _mm512_maskz_expandloadu_ps(mask, (const float *)m->values + at);
    return _mm512_maskz_expand_ps(
        mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(count), (const uint16_t *)m->values + at)));
}

INLINE __m512i codes_at(const tlm_stored_values *m, int kind, size_t at, uint32_t count, __mmask16 mask)
{
    __m128i codes;
    if (kind == BYTES) {
        codes = _mm_maskz_loadu_epi8(lanes(count), m->codes + at);
    } else {
        const uint32_t odd = at % 2;
        const __m128i nibbles = _mm_set1_epi8(15);
        const __m128i v = _mm_maskz_loadu_epi8(lanes((odd + count + 1) / 2), m->codes + at / 2);
        const __m128i low = _mm_and_si128(v, nibbles), high = _mm_and_si128(_mm_srli_epi16(v, 4), nibbles);
        const __m128i first = _mm_unpacklo_epi8(low, high);
        const __m128i shifted = _mm_alignr_epi8(_mm_unpackhi_epi8(low, high), first, 1);
        codes = _mm_mask_blend_epi8((__mmask16)(0u - odd), first, shifted);
        codes = _mm_sub_epi8(codes, _mm_set1_epi8(8));
    }
    return _mm512_maskz_expand_epi32(mask, _mm512_cvtepi8_epi32(codes));
}

INLINE void bitmap_block(const tlm_sparse *m, int kind, const uint32_t *starts, const tlm_input *in,
                         uint32_t columns, float *y, const uint16_t *scales)
{
    const uint8_t *masks = m->positions + starts[1];
    size_t at = starts[0];
    __m512 s[4];
    __m512i n[4];
    UNROLL for (int i = 0; i < 4; i++) s[i] = _mm512_setzero_ps(), n[i] = _mm512_setzero_si512();
    for (uint32_t column = 0; column < columns; column++, masks += 8) {
        UNROLL for (int i = 0; i < 4; i++) {
            uint16_t mask;
            memcpy(&mask, masks + 2 * i, 2);
            const uint32_t count = (uint32_t)__builtin_popcount(mask);
            if (kind >= BYTES) /* the upper halves of the lanes are multiplied by zero */
                n[i] = _mm512_dpwssd_epi32(n[i], codes_at(&m->stored, kind, at, count, mask),
                                           _mm512_set1_epi32(in->q[column] & 0xffff));
            else
                s[i] = _mm512_fmadd_ps(floats_at(&m->stored, kind, at, count, mask),
                                       _mm512_set1_ps(in->x[column]), s[i]);
            at += count;
        }
    }
    UNROLL for (int i = 0; i < 4; i++) {
        if (kind >= BYTES)
            s[i] = _mm512_mul_ps(_mm512_set1_ps(in->scale),
                                 _mm512_mul_ps(_mm512_cvtepi32_ps(n[i]), halves(scales + 16 * i)));
        _mm512_storeu_ps(y + 16 * i, s[i]);
    }
}

TARGET void tlm_avx512_sparse(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                              uint32_t row_end)
{
    const tlm_sparse *m = &w->u.sparse;
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        if (m->coding != TLM_BITMAP || tlm_rows_of_block(w, row) < TLM_BLOCK_ROWS || w->in > TLM_SPAN) {
            tlm_avx2_sparse(w, in, y, row, row_end);
            return;
        }
        const uint32_t *starts = m->starts + 2 * (row / TLM_BLOCK_ROWS);
        const uint16_t *scales = m->stored.bits ? m->stored.scales + row : NULL;
        if (m->stored.bits == 8)
            bitmap_block(m, BYTES, starts, in, w->in, y + row, scales);
        else if (m->stored.bits == 4)
            bitmap_block(m, NIBBLES, starts, in, w->in, y + row, scales);
        else if (m->stored.half)
            bitmap_block(m, HALVES, starts, in, w->in, y + row, scales);
        else
            bitmap_block(m, FLOATS, starts, in, w->in, y + row, scales);
    }
}

#endif
