/* Integer codes with AVX-512 VNNI: the codes are the unsigned operand, the inputs the signed one,
   and what was added to the codes is taken off before the sum starts. */
#include "kernels_avx512.h"

#if TLM_X86

/* What a product of one row block needs. */
typedef struct job {
    const tlm_quantized *m;
    const tlm_input *in;
    const int32_t *sums;    /* of the inputs of each group, or NULL */
    const uint8_t *codes;   /* of the block, from its first row here on */
    const uint16_t *scales; /* likewise */
    const int8_t *zeros;    /* likewise, or NULL */
    float *y;
    size_t run;             /* bytes of a run of the block */
    uint32_t rows;          /* of the block */
    uint32_t columns, group;
} job;

INLINE void add(__m512i *s, int n, const __m512i *codes, __m512i q)
{
    UNROLL for (int i = 0; i < n; i++) s[i] = _mm512_dpbusd_epi32(s[i], codes[i], q);
}

INLINE void load(__m512i *to, int n, const uint8_t *from)
{
    UNROLL for (int i = 0; i < n; i++) to[i] = _mm512_loadu_si512(from + 64 * i);
}

INLINE void span8(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    const uint8_t *at = j->codes + begin / 4 * j->run;
    for (uint32_t k = begin; k < end; k += 4, at += j->run) {
        __m512i w[4];
        UNROLL for (int i = 0; i < n; i++) fetch(at, 2048 + 64 * (uintptr_t)i);
        load(w, n, at);
        UNROLL for (int i = 0; i < n; i++) w[i] = _mm512_xor_si512(w[i], flip);
        add(s, n, w, four(j->in->q + k));
    }
}

INLINE void span4(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i mask = _mm512_set1_epi8(15);
    const uint8_t *at = j->codes + begin / 8 * j->run;
    for (uint32_t k = begin; k < end; k += 8, at += j->run) {
        __m512i w[4], c[4];
        UNROLL for (int i = 0; i < n; i++) fetch(at, 1536 + 64 * (uintptr_t)i);
        load(w, n, at);
        UNROLL for (int i = 0; i < n; i++) c[i] = _mm512_and_si512(w[i], mask);
        add(s, n, c, four(j->in->q + k));
        UNROLL for (int i = 0; i < n; i++)
            c[i] = _mm512_and_si512(_mm512_srli_epi16(w[i], 4), mask);
        add(s, n, c, four(j->in->q + k + 4));
    }
}

/* Groups of 8 may begin and end inside a run of 16 columns, so every four columns load anew
   (from the first cache, where the run is). */
INLINE void span2(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i mask = _mm512_set1_epi8(3);
    for (uint32_t k = begin; k < end;) {
        const uint8_t *at = j->codes + k / 16 * j->run;
        const uint32_t stop = tlm_least(end, (k / 16 + 1) * 16);
        __m512i w[4], c[4];
        UNROLL for (int i = 0; i < n; i++) fetch(at, 1024 + 64 * (uintptr_t)i);
        load(w, n, at);
        for (; k < stop; k += 4) {
            const __m128i shift = _mm_cvtsi32_si128((int)(k % 16 / 2));
            UNROLL for (int i = 0; i < n; i++)
                c[i] = _mm512_and_si512(_mm512_srl_epi16(w[i], shift), mask);
            add(s, n, c, four(j->in->q + k));
        }
    }
}

INLINE void span3(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i two = _mm512_set1_epi8(3), one = _mm512_set1_epi8(4);
    for (uint32_t k = begin; k < end;) {
        const uint8_t *high = j->codes + k / 32 * 3 * j->run;
        const uint8_t *low = high + (1 + k % 32 / 16) * j->run;
        const uint32_t stop = tlm_least(end, (k / 16 + 1) * 16);
        __m512i w[4], h[4], c[4];
        UNROLL for (int i = 0; i < n; i++) fetch(low, 1536 + 64 * (uintptr_t)i);
        load(w, n, low);
        load(h, n, high);
        for (; k < stop; k += 4) {
            const __m128i by_two = _mm_cvtsi32_si128((int)(k % 16 / 2));
            const __m128i by_one = _mm_cvtsi32_si128((int)(k % 32 / 4));
            UNROLL for (int i = 0; i < n; i++) {
                /* The bit of these columns becomes bit 2 of the byte. */
                const __m512i top = _mm512_slli_epi16(_mm512_srl_epi16(h[i], by_one), 2);
                const __m512i rest = _mm512_and_si512(_mm512_srl_epi16(w[i], by_two), two);
                c[i] = _mm512_ternarylogic_epi32(top, one, rest, 0xea); /* (top & one) | rest */
            }
            add(s, n, c, four(j->in->q + k));
        }
    }
}

INLINE void product(const job *j, int bits, int n)
{
    const tlm_quantized *m = j->m;
    /* A zero point of the whole matrix is one more thing to take off. */
    const int32_t offset =
        (bits == 8 ? 128 : 1 << (bits - 1)) + (m->zeros && !m->group ? m->zeros[0] : 0);
    const __m512 only = _mm512_set1_ps(tlm_from_half(m->scales[0]));
    const uint16_t *scales = j->scales;
    const int8_t *zeros = j->zeros;
    __m512 total[4];
    UNROLL for (int i = 0; i < n; i++) total[i] = _mm512_setzero_ps();
    for (uint32_t g = 0; g < m->groups; g++, scales += j->rows) {
        const uint32_t begin = g * j->group, end = begin + tlm_least(j->group, j->columns - begin);
        const int32_t sum_q = j->sums ? j->sums[g] : tlm_sum_input(j->in->q + begin, end - begin);
        const __m512i all_q = _mm512_set1_epi32(sum_q);
        __m512i s[4];
        UNROLL for (int i = 0; i < n; i++) s[i] = _mm512_mullo_epi32(_mm512_set1_epi32(-offset), all_q);
        if (bits == 8)
            span8(s, n, j, begin, end);
        else if (bits == 4)
            span4(s, n, j, begin, end);
        else if (bits == 3)
            span3(s, n, j, begin, end);
        else
            span2(s, n, j, begin, end);
        if (zeros) {
            UNROLL for (int i = 0; i < n; i++) {
                const __m512i zero = _mm512_cvtepi8_epi32(
                    _mm_loadu_si128((const __m128i *)(const void *)(zeros + 16 * i)));
                s[i] = _mm512_sub_epi32(s[i], _mm512_mullo_epi32(zero, all_q));
            }
            zeros += j->rows;
        }
        if (m->mid_rise) {
            UNROLL for (int i = 0; i < n; i++)
                s[i] = _mm512_add_epi32(_mm512_add_epi32(s[i], s[i]), all_q);
        }
        UNROLL for (int i = 0; i < n; i++)
            total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[i]),
                                       m->group ? halves(scales + 16 * i) : only, total[i]);
    }
    const __m512 scale = _mm512_set1_ps(j->in->scale);
    UNROLL for (int i = 0; i < n; i++)
        _mm512_storeu_ps(j->y + 16 * i, _mm512_mul_ps(scale, total[i]));
}

TARGET static void rows64(const job *j)
{
    switch (j->m->bits) {
    case 8: product(j, 8, 4); break;
    case 4: product(j, 4, 4); break;
    case 3: product(j, 3, 4); break;
    default: product(j, 2, 4); break;
    }
}

TARGET static void rows16(const job *j)
{
    switch (j->m->bits) {
    case 8: product(j, 8, 1); break;
    case 4: product(j, 4, 1); break;
    case 3: product(j, 3, 1); break;
    default: product(j, 2, 1); break;
    }
}

void tlm_avx512_quantized(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                          uint32_t row_end)
{
    const tlm_quantized *m = &w->u.quantized;
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    int32_t sums[TLM_SUMS];
    const uint32_t group = m->group ? m->group : w->in;
    if (m->groups <= TLM_SUMS)
        for (uint32_t g = 0; g < m->groups; g++)
            sums[g] = tlm_sum_input(in->q + g * group, tlm_least(group, w->in - g * group));
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        const uint32_t step = rows == TLM_BLOCK_ROWS ? TLM_BLOCK_ROWS : 16;
        for (uint32_t r = 0; r < rows; r += step) {
            const size_t scale = m->group ? (size_t)row * m->groups + r : 0;
            const job j = {
                .m = m,
                .in = in,
                .sums = m->groups <= TLM_SUMS ? sums : NULL,
                .codes = m->codes + row * row_bytes + (size_t)r * 4,
                .scales = m->scales + scale,
                .zeros = m->zeros && m->group ? m->zeros + scale : NULL,
                .y = y + row + r,
                .run = (size_t)rows * 4,
                .rows = rows,
                .columns = w->in,
                .group = group,
            };
            (step == 16 ? rows16 : rows64)(&j);
        }
    }
}

#endif
