/* The sparse forms with AVX2. The last row block, where it is not whole, goes to plain C. */
#include "kernels_avx2.h"

#if TLM_X86

/* What stored values are; functions are made for each. */
enum { FLOATS, HALVES, BYTES, NIBBLES };

static int kind_of(const tlm_stored_values *m)
{
    return m->bits == 8 ? BYTES : m->bits == 4 ? NIBBLES : m->half ? HALVES : FLOATS;
}

/* The sums of a block of rows. */
typedef struct sums {
    float floats[TLM_BLOCK_ROWS];
    int32_t integers[TLM_BLOCK_ROWS];
} sums;

INLINE void write_sums(float *y, const sums *s, const tlm_stored_values *stored,
                       const tlm_input *in, uint32_t row, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++)
        y[row + i] = stored->bits ? in->scale * ((float)s->integers[i] * tlm_from_half(stored->scales[row + i]))
                                  : s->floats[i];
}

/* Eight values from `at` on as floats, or eight codes as bytes (code + 8 where nibbles); those
   beyond the last one stored are not read. */
INLINE __m256 eight_floats(const tlm_stored_values *m, int kind, size_t at, size_t count)
{
    const uint32_t left = (uint32_t)(count - at < 8 ? count - at : 8);
    return kind == HALVES ? some_halves((const uint16_t *)m->values + at, left)
                          : some((const float *)m->values + at, left);
}

INLINE uint64_t eight_codes(const tlm_stored_values *m, int kind, size_t at, size_t count)
{
    uint64_t bytes = 0;
    if (kind == BYTES) {
        if (count - at >= 8)
            memcpy(&bytes, m->codes + at, 8);
        else
            memcpy(&bytes, m->codes + at, count - at);
        return bytes;
    }
    const size_t left = (count + 1) / 2 - at / 2;
    if (left >= 8)
        memcpy(&bytes, m->codes + at / 2, 8);
    else
        memcpy(&bytes, m->codes + at / 2, left);
    return bytes >> at % 2 * 4;
}

/* The values stored in eight rows of a column: each set bit of the mask takes the next one. */
INLINE void bitmap(sums *s, const tlm_sparse *m, int kind, const uint8_t *masks, size_t at,
                   const tlm_input *in, uint32_t columns)
{
    const uint64_t ones = 0x0101010101010101u;
    for (uint32_t column = 0; column < columns; column++, masks += 8) {
        uint64_t left;
        memcpy(&left, masks, 8);
        for (uint32_t r = 0; left; r += 8, left >>= 8) {
            const unsigned mask = (unsigned)left & 255u;
            if (!mask)
                continue;
            const uint64_t places = _pdep_u64(mask, ones) * 255;
            if (kind >= BYTES) {
                uint64_t codes = eight_codes(&m->stored, kind, at, m->count);
                __m128i bytes;
                if (kind == BYTES)
                    bytes = _mm_cvtsi64_si128((long long)_pdep_u64(codes, places));
                else
                    bytes = _mm_sub_epi8(
                        _mm_cvtsi64_si128((long long)_pdep_u64(codes, places & 15 * ones)),
                        _mm_cvtsi64_si128((long long)(places & 8 * ones)));
                const __m256i q = _mm256_set1_epi32(in->q[column] & 0xffff);
                __m256i *to = (__m256i *)(void *)(s->integers + r);
                const __m256i sum = _mm256_madd_epi16(_mm256_cvtepi8_epi32(bytes), q);
                _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sum));
            } else {
                const __m256i from = _mm256_cvtepu8_epi32(
                    _mm_cvtsi64_si128((long long)_pdep_u64(0x0706050403020100u, places)));
                const __m256 here = _mm256_castsi256_ps(
                    _mm256_cvtepi8_epi32(_mm_cvtsi64_si128((long long)places)));
                const __m256 values = _mm256_permutevar8x32_ps(eight_floats(&m->stored, kind, at, m->count), from);
                _mm256_storeu_ps(s->floats + r,
                                 _mm256_fmadd_ps(_mm256_and_ps(values, here), _mm256_set1_ps(in->x[column]),
                                                 _mm256_loadu_ps(s->floats + r)));
            }
            at += (size_t)_mm_popcnt_u32(mask);
        }
    }
}

/* Without a branch on the codes: one that says only "further" adds nothing to the place it is at.
   That place is before the next stored one, so it lies inside the block. */
INLINE void gaps(sums *s, const tlm_sparse *m, int kind, bool nibbles, const uint8_t *codes, size_t at,
                 size_t end, const tlm_input *in)
{
    const unsigned greatest = nibbles ? 15 : 255;
    size_t place = 0;
    for (size_t c = 0; at < end; c++) {
        const unsigned code = nibbles ? (unsigned)codes[c / 2] >> c % 2 * 4 & 15u : codes[c];
        const unsigned here = code != greatest;
        place += code;
        const size_t row = place % TLM_BLOCK_ROWS, column = place / TLM_BLOCK_ROWS;
        if (kind >= BYTES) {
            const int32_t value = kind == BYTES ? (int8_t)m->stored.codes[at]
                                                : (int32_t)((unsigned)m->stored.codes[at / 2] >> at % 2 * 4 & 15u) - 8;
            s->integers[row] += value * in->q[column] & -(int32_t)here;
        } else {
            const __m128 value = kind == HALVES
                                     ? _mm_cvtph_ps(_mm_cvtsi32_si128(((const uint16_t *)m->stored.values)[at]))
                                     : _mm_load_ss((const float *)m->stored.values + at);
            const __m128 product = _mm_and_ps(_mm_mul_ss(value, _mm_load_ss(in->x + column)),
                                              _mm_castsi128_ps(_mm_cvtsi32_si128(-(int)here)));
            _mm_store_ss(s->floats + row, _mm_add_ss(_mm_load_ss(s->floats + row), product));
        }
        at += here;
        place += here;
    }
}

INLINE void sparse_block(sums *s, const tlm_matrix *w, const tlm_input *in, const uint32_t *starts, int kind)
{
    const tlm_sparse *m = &w->u.sparse;
    const uint8_t *positions = m->positions + starts[1];
    if (m->coding == TLM_BITMAP)
        bitmap(s, m, kind, positions, starts[0], in, w->in);
    else if (m->coding == TLM_GAPS4)
        gaps(s, m, kind, true, positions, starts[0], starts[2], in);
    else
        gaps(s, m, kind, false, positions, starts[0], starts[2], in);
}

TARGET void tlm_avx2_sparse(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                            uint32_t row_end)
{
    const tlm_sparse *m = &w->u.sparse;
    const int kind = kind_of(&m->stored);
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        if (tlm_rows_of_block(w, row) < TLM_BLOCK_ROWS || w->in > TLM_SPAN) {
            tlm_portable_sparse(w, in, y, row, row_end);
            return;
        }
        const uint32_t *starts = m->starts + 2 * (row / TLM_BLOCK_ROWS);
        sums s = {{0}, {0}};
        switch (kind) {
        case FLOATS: sparse_block(&s, w, in, starts, FLOATS); break;
        case HALVES: sparse_block(&s, w, in, starts, HALVES); break;
        case BYTES: sparse_block(&s, w, in, starts, BYTES); break;
        default: sparse_block(&s, w, in, starts, NIBBLES); break;
        }
        write_sums(y, &s, &m->stored, in, row, TLM_BLOCK_ROWS);
    }
}

/* A stored block of codes: registers of eight rows by four columns. */
INLINE void block_of_codes(__m256i *s, const uint8_t *codes, int kind, uint32_t high, uint32_t wide,
                           const int8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1), mask = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    for (uint32_t c = 0; c < wide; c += 4) {
        const __m256i part = four(q + c), size = _mm256_abs_epi8(part);
        for (uint32_t r = 0; r < high / 8; r++, codes += kind == BYTES ? 32 : 16) {
            __m256i code;
            if (kind == BYTES) {
                code = load(codes);
            } else {
                code = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)codes));
                code = _mm256_and_si256(_mm256_or_si256(code, _mm256_slli_epi16(code, 4)), mask);
                code = _mm256_sub_epi8(code, eight);
            }
            const __m256i pair = _mm256_maddubs_epi16(size, _mm256_sign_epi8(code, part));
            s[r] = _mm256_add_epi32(s[r], _mm256_madd_epi16(pair, ones));
        }
    }
}

/* A stored block of numbers: registers of two rows by four columns. */
INLINE void block_of_floats(__m256 *s, const tlm_stored_values *m, int kind, size_t at, uint32_t high,
                            uint32_t wide, const float *x, uint32_t columns)
{
    for (uint32_t c = 0; c < wide && c < columns; c += 4) {
        float part[4] = {0};
        memcpy(part, x + c, tlm_least(4, columns - c) * sizeof *x);
        const __m256 by = _mm256_broadcast_ps((const __m128 *)(const void *)part);
        for (uint32_t r = 0; r < high / 2; r++) {
            const size_t place = at + ((size_t)c / 4 * high + 2 * r) * 4;
            const __m256 v = kind == HALVES ? halves((const uint16_t *)m->values + place)
                                            : _mm256_loadu_ps((const float *)m->values + place);
            s[r] = _mm256_fmadd_ps(v, by, s[r]);
        }
    }
}

/* Up to 56 bits of the bitmap from `bit` on; nothing is read beyond its `bytes`. */
INLINE uint64_t bits_from(const uint8_t *map, size_t bytes, size_t bit, uint32_t count)
{
    uint64_t bits = 0;
    if (bytes - bit / 8 >= 8)
        memcpy(&bits, map + bit / 8, 8);
    else
        memcpy(&bits, map + bit / 8, bytes - bit / 8);
    return _bzhi_u64(bits >> bit % 8, count);
}

INLINE void block_rows(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                       uint32_t last, int kind)
{
    const tlm_block_sparse *m = &w->u.block_sparse;
    const uint32_t high = m->high, wide = m->wide;
    const size_t bytes = ((size_t)m->grid_rows * m->grid_columns + 7) / 8;
    size_t bit, stored = tlm_stored_before(w, row_begin, &bit);
    for (uint32_t row = row_begin; row < last; row += high) {
        sums s;
        __m256 floats[TLM_BLOCK_ROWS / 2];
        __m256i integers[TLM_BLOCK_ROWS / 8];
        for (uint32_t r = 0; r < high / 8; r++)
            integers[r] = _mm256_setzero_si256();
        for (uint32_t r = 0; r < high / 2; r++)
            floats[r] = _mm256_setzero_ps();
        for (uint32_t column = 0, count; column < m->grid_columns; column += count, bit += count) {
            count = tlm_least(56, m->grid_columns - column);
            for (uint64_t left = bits_from(m->bitmap, bytes, bit, count); left; left &= left - 1) {
                const uint32_t begin = (column + (uint32_t)_tzcnt_u64(left)) * wide;
                const size_t first = stored++ * (size_t)high * wide;
                if (kind >= BYTES)
                    block_of_codes(integers, m->stored.codes + first / (kind == BYTES ? 1 : 2), kind, high,
                                   wide, in->q + begin);
                else
                    block_of_floats(floats, &m->stored, kind, first, high, wide, in->x + begin, w->in - begin);
            }
        }
        memcpy(s.integers, integers, high * sizeof *s.integers);
        for (uint32_t r = 0; kind < BYTES && r < high; r++) {
            float part[4];
            memcpy(part, (const char *)floats + r * sizeof part, sizeof part);
            s.floats[r] = (part[0] + part[1]) + (part[2] + part[3]);
        }
        write_sums(y, &s, &m->stored, in, row, tlm_least(high, last - row));
    }
}

TARGET void tlm_avx2_block_sparse(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                                  uint32_t row_end)
{
    const tlm_block_sparse *m = &w->u.block_sparse;
    const uint32_t last = tlm_least(row_end, w->out);
    if (m->high < 8 || m->wide < 4 || w->in > TLM_SPAN) {
        tlm_portable_block_sparse(w, in, y, row_begin, row_end);
        return;
    }
    switch (kind_of(&m->stored)) {
    case FLOATS: block_rows(w, in, y, row_begin, last, FLOATS); break;
    case HALVES: block_rows(w, in, y, row_begin, last, HALVES); break;
    case BYTES: block_rows(w, in, y, row_begin, last, BYTES); break;
    default: block_rows(w, in, y, row_begin, last, NIBBLES); break;
    }
}

#endif
