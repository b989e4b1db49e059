/* Integer codes with AVX2. Products of bytes are summed in pairs to 16 bits, which must not
   saturate: 2 * 127 * 127 with 8-bit codes; smaller codes leave room for 32 columns. */
#include "kernels_avx2.h"

#if TLM_X86

/* What a product of one row block and one input needs. */
typedef struct job {
    const tlm_quantized *m;
    const tlm_input *in;
    const int32_t *sums;    /* of the inputs of each span, or NULL */
    const uint8_t *codes;   /* of the block */
    const uint16_t *scales; /* likewise */
    const int8_t *zeros;    /* likewise, or NULL */
    float *y;
    uint32_t rows; /* of the block */
    uint32_t columns, group;
    uintptr_t far; /* mask of how far ahead lines of 8-bit codes are asked for */
} job;

/* q has zeros up to a multiple of 8 where n is not one. */
TARGET static int32_t sum_input(const int8_t *q, uint32_t n)
{
    const __m256i one = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    uint32_t k = 0;
    for (; k + 32 <= n; k += 32)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(one, load(q + k)), ones));
    for (; k < n; k += 8) {
        const __m256i part = _mm256_zextsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)(q + k)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(one, part), ones));
    }
    return total_of_integers(sum);
}

/* The sign of each input goes to its code, for the unsigned operand is the input's size. */
INLINE void span8(__m256i *sums, int n, const job *j, uint32_t begin, uint32_t end)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t run = (size_t)j->rows * 4;
    for (uint32_t r = 0; r < j->rows; r += 8 * (uint32_t)n, sums += n) {
        const uint8_t *at = j->codes + begin / 4 * run + (size_t)r * 4;
        __m256i s[8];
        UNROLL for (int i = 0; i < n; i++) s[i] = _mm256_setzero_si256();
        for (uint32_t k = begin; k < end; k += 4, at += run) {
            const __m256i q = four(j->in->q + k), size = _mm256_abs_epi8(q);
            UNROLL for (int i = 0; i < n; i += 2) fetch(at, (2048 & j->far) + 32 * (uintptr_t)i);
            UNROLL for (int i = 0; i < n; i++) {
                const __m256i code = _mm256_sign_epi8(load(at + 32 * i), q);
                s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(size, code), ones));
            }
        }
        UNROLL for (int i = 0; i < n; i++) sums[i] = s[i];
    }
}

/* The pair sums of one load of a run: `quads` fours of columns at `bits` each, low bits first. */
INLINE __m256i pairs(__m256i w, const __m256i *q, int bits, int quads)
{
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    __m256i s = _mm256_maddubs_epi16(_mm256_and_si256(w, mask), q[0]);
    UNROLL for (int i = 1; i < quads; i++)
        s = _mm256_add_epi16(s, _mm256_maddubs_epi16(
                                    _mm256_and_si256(_mm256_srli_epi16(w, bits * i), mask), q[i]));
    return s;
}

/* Sixteen columns of 3-bit codes; their bits of the high plane begin at bit `from`. */
INLINE __m256i pairs_of_threes(__m256i low, __m256i high, const __m256i *q, int from)
{
    const __m256i two = _mm256_set1_epi8(3), one = _mm256_set1_epi8(4);
    __m256i s = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++) {
        const int at = from + i;
        const __m256i top = at < 2 ? _mm256_slli_epi16(high, 2 - at) : _mm256_srli_epi16(high, at - 2);
        const __m256i code = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low, 2 * i), two),
                                             _mm256_and_si256(top, one));
        s = _mm256_add_epi16(s, _mm256_maddubs_epi16(code, q[i]));
    }
    return s;
}

/* Up to 32 columns, of which runs `first` to `last` matter; n registers of eight rows. */
INLINE void chunk(__m256i *s, int n, const uint8_t *at, size_t run, const __m256i *q, int bits,
                  int first, int last)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < n; i++, at += 32) {
        __m256i sum = _mm256_setzero_si256();
        fetch(at, 1024);
        if (bits == 3) {
            const __m256i high = load(at);
            if (first == 0)
                sum = pairs_of_threes(load(at + run), high, q, 0);
            if (last == 2)
                sum = _mm256_add_epi16(sum, pairs_of_threes(load(at + 2 * run), high, q + 4, 4));
        } else {
            const int quads = 8 / bits, runs = bits; /* 32 columns */
            UNROLL for (int u = 0; u < runs; u++)
                if (u >= first && u < last)
                    sum = _mm256_add_epi16(sum, pairs(load(at + (size_t)u * run), q + quads * u, bits, quads));
        }
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(sum, ones));
    }
}

/* Codes of fewer than 8 bits from `begin` (a multiple of 8) to `end`. */
INLINE void span(__m256i *s, const job *j, int bits, uint32_t begin, uint32_t end)
{
    const int n = (int)j->rows / 8;
    const size_t run = (size_t)j->rows * 4;
    const uint32_t wide = bits == 4 ? 8 : 16; /* columns of a run */
    const int runs = (int)(32 / wide);
    for (uint32_t k = begin / 32 * 32; k < end; k += 32) {
        const uint8_t *at = j->codes + (size_t)(k / 32) * (unsigned)bits * run;
        const uint32_t from = k < begin ? begin - k : 0, to = tlm_least(32, end - k);
        __m256i q[8];
        if (from == 0 && to == 32) {
            UNROLL for (int i = 0; i < 8; i++) q[i] = four(j->in->q + k + 4 * i);
            chunk(s, n, at, run, q, bits, 0, runs);
            continue;
        }
        for (uint32_t i = 0; i < 8; i++) /* other columns of a run may be another group's */
            q[i] = 4 * i >= from && 4 * i < to ? four(j->in->q + k + 4 * i) : _mm256_setzero_si256();
        chunk(s, n, at, run, q, bits, (int)(from / wide), (int)((to - 1) / wide) + 1);
    }
}

INLINE void product(const job *j, int bits)
{
    const tlm_quantized *m = j->m;
    const int n = (int)j->rows / 8;
    /* A zero point of the whole matrix is one more thing to take off. */
    const int32_t offset = tlm_code_offset((unsigned)bits) + (m->zeros && !m->group ? m->zeros[0] : 0);
    const __m256 only = _mm256_set1_ps(tlm_from_half(m->scales[0]));
    const bool need_sum = bits < 8 || m->zeros;
    const uint16_t *scales = j->scales;
    const int8_t *zeros = j->zeros;
    uint32_t piece = 0;
    __m256 total[8];
    for (int i = 0; i < n; i++)
        total[i] = _mm256_setzero_ps();
    for (uint32_t g = 0; g < m->groups; g++, scales += j->rows, zeros = zeros ? zeros + j->rows : NULL) {
        const uint32_t stop = g * j->group + tlm_least(j->group, j->columns - g * j->group);
        for (uint32_t begin = g * j->group, end; begin < stop; begin = end, piece++) {
            end = begin + tlm_least(TLM_SPAN, stop - begin);
            const int32_t sum_q = !need_sum  ? 0
                                  : j->sums ? j->sums[piece]
                                            : sum_input(j->in->q + begin, end - begin);
            const __m256i all_q = _mm256_set1_epi32(sum_q);
            const __m256i start = _mm256_mullo_epi32(_mm256_set1_epi32(-offset), all_q);
            __m256i s[8];
            if (bits == 8) {
                if (n == 8)
                    span8(s, 8, j, begin, end);
                else
                    span8(s, 2, j, begin, end);
                for (int i = 0; i < n; i++)
                    s[i] = _mm256_add_epi32(s[i], start);
            } else {
                for (int i = 0; i < n; i++)
                    s[i] = start;
                span(s, j, bits, begin, end);
            }
            for (int i = 0; i < n; i++) {
                if (zeros) {
                    const __m256i zero = _mm256_cvtepi8_epi32(
                        _mm_loadl_epi64((const __m128i *)(const void *)(zeros + 8 * i)));
                    s[i] = _mm256_sub_epi32(s[i], _mm256_mullo_epi32(zero, all_q));
                }
                if (m->mid_rise)
                    s[i] = _mm256_add_epi32(_mm256_add_epi32(s[i], s[i]), all_q);
                total[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[i]),
                                           m->group ? halves(scales + 8 * i) : only, total[i]);
            }
        }
    }
    const __m256 scale = _mm256_set1_ps(j->in->scale);
    for (int i = 0; i < n; i++)
        _mm256_storeu_ps(j->y + 8 * i, _mm256_mul_ps(scale, total[i]));
}

TARGET static void product8(const job *j) { product(j, 8); }
TARGET static void product4(const job *j) { product(j, 4); }
TARGET static void product3(const job *j) { product(j, 3); }
TARGET static void product2(const job *j) { product(j, 2); }

/* A row block stays in the first caches while the inputs go through it. */
static void quantized_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                           size_t stride, uint32_t row_begin, uint32_t row_end, uintptr_t far)
{
    const tlm_quantized *m = &w->u.quantized;
    void (*const of_block)(const job *) =
        m->bits == 8 ? product8 : m->bits == 4 ? product4 : m->bits == 3 ? product3 : product2;
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    const uint32_t group = m->group ? m->group : w->in;
    const uint32_t pieces = group > TLM_SPAN ? 0 : m->groups; /* of a row; 0: sums are made anew */
    const bool keep = pieces && pieces <= TLM_SUMS;
    const uint32_t at_once = keep ? TLM_SUMS / pieces : count;
    int32_t sums[TLM_SUMS];
    for (uint32_t first = 0; first < count; first += tlm_least(at_once, count - first)) {
        const uint32_t last = first + tlm_least(at_once, count - first);
        for (uint32_t i = first; keep && i < last; i++)
            for (uint32_t g = 0; g < pieces; g++)
                sums[(i - first) * pieces + g] =
                    sum_input(in[i].q + g * group, tlm_least(group, w->in - g * group));
        for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
            const size_t scale = m->group ? (size_t)row * m->groups : 0;
            job j = {
                .m = m,
                .codes = m->codes + row * row_bytes,
                .scales = m->scales + scale,
                .zeros = m->zeros && m->group ? m->zeros + scale : NULL,
                .rows = tlm_rows_of_block(w, row),
                .columns = w->in,
                .group = group,
                .far = far,
            };
            for (uint32_t i = first; i < last; i++) {
                j.in = in + i;
                j.sums = keep ? sums + (i - first) * pieces : NULL;
                j.y = y + i * stride + row;
                of_block(&j);
            }
        }
    }
}

void tlm_avx2_quantized_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                             size_t stride, uint32_t row_begin, uint32_t row_end)
{
    quantized_many(w, in, count, y, stride, row_begin, row_end, UINTPTR_MAX);
}

void tlm_avx2_quantized(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                        uint32_t row_end)
{
    quantized_many(w, in, 1, y, 0, row_begin, row_end, UINTPTR_MAX);
}

/* For processors that fetch ahead better by themselves. */
void tlm_avx2_quantized_near(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                             uint32_t row_end)
{
    quantized_many(w, in, 1, y, 0, row_begin, row_end, 0);
}

#endif
