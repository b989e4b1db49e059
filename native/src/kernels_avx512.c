/* Integer codes with AVX-512 VNNI: the codes are the unsigned operand, the inputs the signed one,
   and what was added to the codes is taken off before the sum starts. */
#include "kernels_avx512.h"

#if TLM_X86

/* What a product of one row block needs. */
typedef struct job {
    const tlm_quantized *m;
    const tlm_input *in;
    const int32_t *sums;    /* of the inputs of each span, or NULL */
    const uint8_t *codes;   /* of the block, from its first row here on */
    const uint16_t *scales; /* likewise */
    const int8_t *zeros;    /* likewise, or NULL */
    float *y;
    size_t run;             /* bytes of a run of the block */
    uint32_t rows;          /* of the block */
    uint32_t columns, group;
    uintptr_t far;          /* mask of how far ahead lines are asked for */
} job;

/* q has zeros up to a multiple of 4 where n is not one. */
TARGET int32_t tlm_avx512_sum_input(const int8_t *q, uint32_t n)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    uint32_t k = 0;
    for (; k + 64 <= n; k += 64)
        sum = _mm512_dpbusd_epi32(sum, ones, _mm512_loadu_si512(q + k));
    if (k < n)
        sum = _mm512_dpbusd_epi32(
            sum, ones, _mm512_maskz_loadu_epi32(lanes(tlm_ceil_div(n - k, 4)), q + k));
    return _mm512_reduce_add_epi32(sum);
}

/* Into the sums of n registers of rows. */
INLINE void add(__m512i *s, int n, const __m512i *codes, const job *j, uint32_t k)
{
    const __m512i q = four(j->in->q + k);
    UNROLL for (int i = 0; i < n; i++) s[i] = _mm512_dpbusd_epi32(s[i], codes[i], q);
}

INLINE void load(__m512i *to, int n, const uint8_t *from)
{
    UNROLL for (int i = 0; i < n; i++) to[i] = _mm512_loadu_si512(from + 64 * i);
}

/* Two uses of one load stay one load: some processors load 64 bytes a cycle and no more. */
#define one_load(w) __asm__("" : "+v"(w))

INLINE void span8(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    const uint8_t *at = j->codes + begin / 4 * j->run;
    for (uint32_t k = begin; k < end; k += 4, at += j->run) {
        __m512i w[4];
        UNROLL for (int i = 0; i < n; i++) fetch(at, (2048 & j->far) + 64 * (uintptr_t)i);
        load(w, n, at);
        UNROLL for (int i = 0; i < n; i++) w[i] = _mm512_xor_si512(w[i], flip);
        add(s, n, w, j, k);
    }
}

INLINE void span4(__m512i *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m512i mask = _mm512_set1_epi8(15);
    const uint8_t *at = j->codes + begin / 8 * j->run;
    for (uint32_t k = begin; k < end; k += 8, at += j->run) {
        __m512i w[4], c[4];
        UNROLL for (int i = 0; i < n; i++) fetch(at, (1536 & j->far) + 64 * (uintptr_t)i);
        load(w, n, at);
        UNROLL for (int i = 0; i < n; i++) one_load(w[i]);
        UNROLL for (int i = 0; i < n; i++) c[i] = _mm512_and_si512(w[i], mask);
        add(s, n, c, j, k);
        UNROLL for (int i = 0; i < n; i++)
            c[i] = _mm512_and_si512(_mm512_srli_epi16(w[i], 4), mask);
        add(s, n, c, j, k + 4);
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
        UNROLL for (int i = 0; i < n; i++) fetch(at, (1024 & j->far) + 64 * (uintptr_t)i);
        load(w, n, at);
        for (; k < stop; k += 4) {
            const __m128i shift = _mm_cvtsi32_si128((int)(k % 16 / 2));
            UNROLL for (int i = 0; i < n; i++)
                c[i] = _mm512_and_si512(_mm512_srl_epi16(w[i], shift), mask);
            add(s, n, c, j, k);
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
        UNROLL for (int i = 0; i < n; i++) fetch(low, (1536 & j->far) + 64 * (uintptr_t)i);
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
            add(s, n, c, j, k);
        }
    }
}

INLINE void spans(__m512i *s, int bits, int n, const job *j, uint32_t begin, uint32_t end)
{
    if (bits == 8)
        span8(s, n, j, begin, end);
    else if (bits == 4)
        span4(s, n, j, begin, end);
    else if (bits == 3)
        span3(s, n, j, begin, end);
    else
        span2(s, n, j, begin, end);
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
    uint32_t piece = 0;
    __m512 total[4];
    UNROLL for (int i = 0; i < n; i++) total[i] = _mm512_setzero_ps();
    for (uint32_t g = 0; g < m->groups; g++, scales += j->rows, zeros = zeros ? zeros + j->rows : NULL) {
        const uint32_t stop = g * j->group + tlm_least(j->group, j->columns - g * j->group);
        for (uint32_t begin = g * j->group, end; begin < stop; begin = end, piece++) {
            end = begin + tlm_least(TLM_SPAN, stop - begin);
            const int32_t sum_q = j->sums ? j->sums[piece]
                                          : tlm_avx512_sum_input(j->in->q + begin, end - begin);
            const __m512i start = _mm512_set1_epi32(-offset * sum_q), all_q = _mm512_set1_epi32(sum_q);
            __m512i s[4];
            UNROLL for (int i = 0; i < n; i++) s[i] = start;
            spans(s, bits, n, j, begin, end);
            UNROLL for (int i = 0; i < n; i++) {
                const __m512 scale = m->group ? halves(scales + 16 * i) : only;
                if (zeros)
                    s[i] = _mm512_sub_epi32(
                        s[i], _mm512_mullo_epi32(
                                  _mm512_cvtepi8_epi32(_mm_loadu_si128(
                                      (const __m128i *)(const void *)(zeros + 16 * i))),
                                  all_q));
                if (m->mid_rise)
                    s[i] = _mm512_add_epi32(_mm512_add_epi32(s[i], s[i]), all_q);
                total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[i]), scale, total[i]);
            }
        }
    }
    const __m512 scale = _mm512_set1_ps(j->in->scale);
    UNROLL for (int i = 0; i < n; i++)
        _mm512_storeu_ps(j->y + 16 * i, _mm512_mul_ps(scale, total[i]));
}

/* One function for each size of code and height. */
#define PRODUCT(bits, n) \
    TARGET static void product_##bits##_##n(const job *j) { product(j, bits, n); }
#define PRODUCTS(n) PRODUCT(8, n) PRODUCT(4, n) PRODUCT(3, n) PRODUCT(2, n)
PRODUCTS(4)
PRODUCTS(1)

typedef void block_product(const job *j);

static void quantized(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                      uint32_t row_end, uintptr_t far)
{
    static block_product *const ROWS64[4] = {product_8_4, product_4_4, product_3_4, product_2_4};
    static block_product *const ROWS16[4] = {product_8_1, product_4_1, product_3_1, product_2_1};
    const tlm_quantized *m = &w->u.quantized;
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    const uint32_t group = m->group ? m->group : w->in;
    const uint32_t pieces = group > TLM_SPAN ? 0 : m->groups; /* of a row; 0: sums are made anew */
    const unsigned bits = m->bits == 8 ? 0 : 5u - m->bits;    /* 8, 4, 3, 2 */
    const bool keep = pieces && pieces <= TLM_SUMS;
    int32_t sums[TLM_SUMS];
    for (uint32_t g = 0; keep && g < pieces; g++)
        sums[g] = tlm_avx512_sum_input(in->q + g * group, tlm_least(group, w->in - g * group));
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        const uint32_t step = rows == TLM_BLOCK_ROWS ? TLM_BLOCK_ROWS : 16;
        for (uint32_t r = 0; r < rows; r += step) {
            const size_t scale = m->group ? (size_t)row * m->groups + r : 0;
            const job j = {
                .m = m,
                .in = in,
                .sums = keep ? sums : NULL,
                .codes = m->codes + row * row_bytes + (size_t)r * 4,
                .scales = m->scales + scale,
                .zeros = m->zeros && m->group ? m->zeros + scale : NULL,
                .y = y + row + r,
                .run = (size_t)rows * 4,
                .rows = rows,
                .columns = w->in,
                .group = group,
                .far = far,
            };
            (step == 16 ? ROWS16 : ROWS64)[bits](&j);
        }
    }
}

void tlm_avx512_quantized(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                          uint32_t row_end)
{
    quantized(w, in, y, row_begin, row_end, UINTPTR_MAX);
}

/* For processors that fetch ahead better by themselves. */
void tlm_avx512_quantized_near(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                               uint32_t row_end)
{
    quantized(w, in, y, row_begin, row_end, 0);
}

#endif
