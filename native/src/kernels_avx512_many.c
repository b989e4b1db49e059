/* Integer codes times many inputs with AVX-512 VNNI. The codes of a row block are unpacked once,
   as unsigned bytes [columns / 4][64][4] that stay in the first caches while all inputs go over
   them; what was added to the codes is taken off the sums. */
#include "kernels_avx512.h"

#if TLM_X86

enum { REGISTERS = TLM_BLOCK_ROWS / 16, AT_ONCE = 6, FEW = 8, QUAD = 4 * TLM_BLOCK_ROWS };
/* Columns unpacked at once. */
#define COLUMNS 1024u

/* Columns [begin, end) of a row block; whole groups, or a part of the only one. */
typedef struct job {
    const tlm_matrix *w;
    const int32_t *sums;    /* [inputs][groups] of the inputs of each group */
    const int32_t *starts;  /* likewise: less these what was added to the codes */
    const uint8_t *codes;   /* of the block */
    const uint8_t *next;    /* where reading will go on */
    const uint16_t *scales; /* of the block */
    const int8_t *zeros;    /* likewise, or NULL */
    size_t stride;
    uint32_t rows; /* of the block */
    uint32_t begin, end, group, first_group;
    bool goes_on; /* the group does, in the next columns */
    bool special; /* sums need more than a scale */
} job;

INLINE __m512i at_column(const uint8_t *codes, size_t run, int bits, uint32_t k)
{
    const __m128i by_two = _mm_cvtsi32_si128((int)(k % 16 / 2));
    if (bits == 8)
        return _mm512_xor_si512(_mm512_loadu_si512(codes + k / 4 * run), _mm512_set1_epi8(-128));
    if (bits == 4)
        return _mm512_and_si512(_mm512_srl_epi16(_mm512_loadu_si512(codes + k / 8 * run),
                                                 _mm_cvtsi32_si128((int)(k % 8))),
                                _mm512_set1_epi8(15));
    if (bits == 2)
        return _mm512_and_si512(_mm512_srl_epi16(_mm512_loadu_si512(codes + k / 16 * run), by_two),
                                _mm512_set1_epi8(3));
    const uint8_t *high = codes + k / 32 * 3 * run, *low = high + (1 + k % 32 / 16) * run;
    const __m512i top = _mm512_slli_epi16(
        _mm512_srl_epi16(_mm512_loadu_si512(high), _mm_cvtsi32_si128((int)(k % 32 / 4))), 2);
    const __m512i rest = _mm512_and_si512(_mm512_srl_epi16(_mm512_loadu_si512(low), by_two),
                                          _mm512_set1_epi8(3));
    return _mm512_ternarylogic_epi32(top, _mm512_set1_epi8(4), rest, 0xea); /* (top & 4) | rest */
}

/* Mid-rise levels become twice the code and one, which is as much less than 2^bits. */
INLINE void unpack_bits(const job *j, int bits, uint8_t *to)
{
    const size_t run = (size_t)j->rows * 4;
    const __m512i one = _mm512_set1_epi8(1);
    for (uint32_t k = j->begin; k < j->end; k += 4, to += QUAD)
        for (uint32_t r = 0; r < run; r += 64) {
            __m512i code = at_column(j->codes + r, run, bits, k);
            if (bits < 8 && j->w->u.quantized.mid_rise)
                code = _mm512_add_epi8(_mm512_add_epi8(code, code), one);
            _mm512_store_si512(to + r, code);
        }
}

TARGET static void unpack(const job *j, uint8_t *to)
{
    switch (j->w->u.quantized.bits) {
    case 8: unpack_bits(j, 8, to); break;
    case 4: unpack_bits(j, 4, to); break;
    case 3: unpack_bits(j, 3, to); break;
    default: unpack_bits(j, 2, to); break;
    }
}

/* What a row block makes of up to six inputs. */
typedef struct tile {
    const uint8_t *codes; /* unpacked */
    const uint8_t *next;  /* asked for on the way */
    const tlm_input *in;
    const int32_t *sums, *starts; /* of these inputs */
    float *y;
} tile;

/* What the columns before have come to: products, or sums of a group that goes on. */
typedef __m512 totals[AT_ONCE][REGISTERS];

TARGET static void __attribute__((noinline)) take_totals(const job *j, const tile *t, int count,
                                                         totals total)
{
    for (int c = 0; c < count; c++)
        for (uint32_t i = 0; i < REGISTERS; i++)
            total[c][i] = j->begin && 16 * i < j->rows
                              ? _mm512_loadu_ps(t->y + (size_t)c * j->stride + 16 * i)
                              : _mm512_setzero_ps();
}

TARGET static void __attribute__((noinline)) put_totals(const job *j, const tile *t, int count,
                                                        totals total)
{
    for (int c = 0; c < count; c++)
        for (uint32_t i = 0; 16 * i < j->rows; i++)
            _mm512_storeu_ps(t->y + (size_t)c * j->stride + 16 * i,
                             j->end < j->w->in
                                 ? total[c][i]
                                 : _mm512_mul_ps(_mm512_set1_ps(t->in[c].scale), total[c][i]));
}

/* Of zero points, of one scale for the matrix and of groups that go on. */
TARGET static void __attribute__((noinline)) take_special(const job *j, const tile *t, int count,
                                                          uint32_t g, __m512i (*s)[REGISTERS],
                                                          totals total)
{
    const tlm_quantized *m = &j->w->u.quantized;
    for (uint32_t i = 0; 16 * i < j->rows; i++) {
        const size_t at = (size_t)g * j->rows + 16 * i;
        const __m512 scale =
            m->group ? halves(j->scales + at) : _mm512_set1_ps(tlm_from_half(m->scales[0]));
        for (int c = 0; c < count; c++) {
            const __m512i all_q = _mm512_set1_epi32(t->sums[(uint32_t)c * m->groups + g]);
            __m512i sum = s[c][i];
            if (j->goes_on) {
                total[c][i] = _mm512_castsi512_ps(sum);
                continue;
            }
            if (j->zeros)
                sum = _mm512_sub_epi32(
                    sum, _mm512_mullo_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128(
                                                (const __m128i *)(const void *)(j->zeros + at))),
                                            all_q));
            const __m512 before = m->groups > 1 ? total[c][i] : _mm512_setzero_ps();
            total[c][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, before);
        }
    }
}

/* Cache lines of the next row block that are asked for every four columns, so that the fewest
   inputs that are taken `count` at once read all of it. */
static inline int lines_of(int count)
{
    return count == AT_ONCE ? 2 : 4;
}

INLINE void add_up(const job *j, const tile *t, int count)
{
    const uint32_t groups = j->w->u.quantized.groups;
    const uint8_t *codes = t->codes, *next = t->next;
    const uint16_t *scales = j->scales + (size_t)j->first_group * j->rows;
    const bool went_on = groups == 1 && j->begin != 0;
    const int lines = lines_of(count);
    totals total;
    take_totals(j, t, count, total);
    for (uint32_t begin = j->begin, g = j->first_group, end; begin < j->end;
         begin = end, g++, scales += j->rows) {
        __m512i s[AT_ONCE][REGISTERS];
        end = begin + tlm_least(j->group, j->end - begin);
        UNROLL for (int c = 0; c < count; c++) {
            const __m512i start = _mm512_set1_epi32(t->starts[(uint32_t)c * groups + g]);
            UNROLL for (int i = 0; i < REGISTERS; i++) s[c][i] = start;
        }
        if (went_on)
            UNROLL for (int c = 0; c < count; c++)
                UNROLL for (int i = 0; i < REGISTERS; i++) s[c][i] = _mm512_castps_si512(total[c][i]);
        for (uint32_t k = begin; k < end; k += 4, codes += QUAD, next += 64 * lines) {
            __m512i w[REGISTERS];
            UNROLL for (int i = 0; i < lines; i++) _mm_prefetch((const char *)next + 64 * i, _MM_HINT_T1);
            UNROLL for (int i = 0; i < REGISTERS; i++) w[i] = _mm512_load_si512(codes + 64 * i);
            UNROLL for (int c = 0; c < count; c++) {
                const __m512i q = four(t->in[c].q + k);
                UNROLL for (int i = 0; i < REGISTERS; i++)
                    s[c][i] = _mm512_dpbusd_epi32(s[c][i], w[i], q);
            }
        }
        if (j->special) {
            __m512i kept[AT_ONCE][REGISTERS];
            UNROLL for (int c = 0; c < count; c++)
                UNROLL for (int i = 0; i < REGISTERS; i++) kept[c][i] = s[c][i];
            take_special(j, t, count, g, kept, total);
            continue;
        }
        UNROLL for (int i = 0; i < REGISTERS; i++) {
            if (16 * (uint32_t)i >= j->rows)
                continue;
            const __m512 scale = halves(scales + 16 * i);
            UNROLL for (int c = 0; c < count; c++)
                total[c][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[c][i]), scale, total[c][i]);
        }
    }
    put_totals(j, t, count, total);
}

typedef void adder(const job *j, const tile *t);
#define ADDER(count) \
    TARGET static void add_up_##count(const job *j, const tile *t) { add_up(j, t, count); }
ADDER(6)
ADDER(4)
ADDER(2)
ADDER(1)

/* n registers of rows times up to `most` inputs, straight from the codes, which then are read once:
   fewer inputs are computed as `most`. */
INLINE void multiply_few(const job *j, const tile *t, uint32_t row, uint32_t count, int bits, int n,
                         int most)
{
    const tlm_quantized *m = &j->w->u.quantized;
    const uint8_t *codes = j->codes + 4 * row;
    const uint16_t *scales = j->scales + row;
    const __m512i flip = _mm512_set1_epi8(-128), odd = _mm512_set1_epi8(m->mid_rise);
    const __m512i mask = _mm512_set1_epi8(m->mid_rise ? 30 : 15);
    const __m512i up = _mm512_set1_epi16(m->mid_rise), down = _mm512_set1_epi16(m->mid_rise ? 3 : 4);
    const int8_t *q[FEW];
    const int32_t *starts[FEW];
    __m512 total[FEW][REGISTERS];
    UNROLL for (int c = 0; c < most; c++) {
        const uint32_t at = tlm_least((uint32_t)c, count - 1);
        q[c] = t->in[at].q;
        starts[c] = t->starts + (size_t)at * m->groups;
        UNROLL for (int i = 0; i < n; i++) total[c][i] = _mm512_setzero_ps();
    }
    for (uint32_t begin = 0, g = 0, end; begin < j->end; begin = end, g++, scales += j->rows) {
        __m512i s[FEW][REGISTERS], w[REGISTERS], code[REGISTERS];
        end = begin + tlm_least(j->group, j->end - begin);
        UNROLL for (int c = 0; c < most; c++)
            UNROLL for (int i = 0; i < n; i++) s[c][i] = _mm512_set1_epi32(starts[c][g]);
        for (uint32_t k = begin; k < end; k += 32 / (unsigned)bits, codes += QUAD) {
            UNROLL for (int i = 0; i < n; i++) {
                fetch(codes, 2048 + 64 * (uintptr_t)i);
                w[i] = _mm512_loadu_si512(codes + 64 * i);
                code[i] = bits == 8 ? _mm512_xor_si512(w[i], flip)
                                    : _mm512_ternarylogic_epi32(_mm512_sllv_epi16(w[i], up), mask,
                                                                odd, 0xea); /* (w & mask) | odd */
            }
            UNROLL for (int c = 0; c < most; c++)
                UNROLL for (int i = 0; i < n; i++)
                    s[c][i] = _mm512_dpbusd_epi32(s[c][i], code[i], four(q[c] + k));
            if (bits == 8)
                continue;
            UNROLL for (int i = 0; i < n; i++)
                code[i] = _mm512_ternarylogic_epi32(_mm512_srlv_epi16(w[i], down), mask, odd, 0xea);
            UNROLL for (int c = 0; c < most; c++)
                UNROLL for (int i = 0; i < n; i++)
                    s[c][i] = _mm512_dpbusd_epi32(s[c][i], code[i], four(q[c] + k + 4));
        }
        UNROLL for (int i = 0; i < n; i++) {
            const __m512 scale = halves(scales + 16 * i);
            UNROLL for (int c = 0; c < most; c++)
                total[c][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[c][i]), scale, total[c][i]);
        }
    }
    UNROLL for (int c = 0; c < most; c++)
        if ((uint32_t)c < count)
            UNROLL for (int i = 0; i < n; i++)
                _mm512_storeu_ps(t->y + (size_t)c * j->stride + row + 16 * i,
                                 _mm512_mul_ps(_mm512_set1_ps(t->in[c].scale), total[c][i]));
}

TARGET static void few_8(const job *j, const tile *t, uint32_t count)
{
    for (uint32_t row = 0; row < TLM_BLOCK_ROWS; row += 32)
        multiply_few(j, t, row, count, 8, 2, FEW);
}

TARGET static void few_4(const job *j, const tile *t, uint32_t count)
{
    if (count <= FEW / 2)
        multiply_few(j, t, 0, count, 4, REGISTERS, FEW / 2);
    else
        for (uint32_t row = 0; row < TLM_BLOCK_ROWS; row += 32)
            multiply_few(j, t, row, count, 4, 2, FEW);
}

/* All inputs over the unpacked columns of a row block. */
static void all_inputs(const job *j, tile t, uint32_t count)
{
    static adder *const ADDERS[4] = {add_up_6, add_up_4, add_up_2, add_up_1};
    static const uint8_t TAKES[4] = {6, 4, 2, 1};
    const uint8_t *last = j->next + (size_t)j->rows * (j->end - j->begin) * j->w->u.quantized.bits / 8;
    for (uint32_t choice = 0; count;) {
        const uint32_t takes = TAKES[choice];
        /* Eight left go better as twice four than as six and two. */
        if (takes > count || (takes == 6 && count == 8)) {
            choice++;
            continue;
        }
        ADDERS[choice](j, &t);
        count -= takes;
        t.in += takes;
        t.sums += (size_t)takes * j->w->u.quantized.groups;
        t.starts += (size_t)takes * j->w->u.quantized.groups;
        t.y += takes * j->stride;
        t.next += (size_t)lines_of((int)takes) * 16 * (j->end - j->begin);
        if (t.next >= last)
            t.next = j->next;
    }
}

/* For up to TLM_SUMS / groups inputs. */
static void some_inputs(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                        size_t stride, uint32_t row_begin, uint32_t row_end)
{
    _Alignas(64) uint8_t codes[COLUMNS * TLM_BLOCK_ROWS];
    int32_t sums[TLM_SUMS], starts[TLM_SUMS];
    const tlm_quantized *m = &w->u.quantized;
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    const uint32_t group = m->group ? m->group : w->in;
    const uint32_t step = group < COLUMNS ? COLUMNS / group * group : COLUMNS;
    const int32_t offset = (1 << (m->mid_rise ? m->bits : m->bits - 1)) +
                           (m->zeros && !m->group ? m->zeros[0] : 0);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t g = 0; g < m->groups; g++) {
            const uint32_t at = i * m->groups + g;
            sums[at] = tlm_avx512_sum_input(in[i].q + g * group, tlm_least(group, w->in - g * group));
            starts[at] = -offset * sums[at];
        }
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const size_t scale = m->group ? (size_t)row * m->groups : 0;
        job j = {.w = w, .sums = sums, .starts = starts, .stride = stride, .group = group};
        j.rows = tlm_rows_of_block(w, row);
        j.codes = m->codes + row * row_bytes;
        j.scales = m->scales + scale;
        j.zeros = m->zeros && m->group ? m->zeros + scale : NULL;
        if (count <= FEW && j.rows == TLM_BLOCK_ROWS && (m->bits == 8 || m->bits == 4) && m->group &&
            !m->zeros) {
            const tile t = {NULL, NULL, in, sums, starts, y + row};
            j.end = w->in;
            (m->bits == 8 ? few_8 : few_4)(&j, &t, count);
            continue;
        }
        for (; j.begin < w->in; j.begin = j.end) {
            j.end = j.begin + tlm_least(step, w->in - j.begin);
            j.first_group = j.begin / group;
            j.goes_on = m->groups == 1 && j.end < w->in;
            j.special = j.zeros || !m->group || (m->groups == 1 && w->in > step);
            j.next = j.codes + j.rows * (j.end == w->in ? row_bytes : tlm_runs(j.end, m->bits) * 4);
            unpack(&j, codes);
            all_inputs(&j, (tile){codes, j.next, in, sums, starts, y + row}, count);
        }
    }
}

void tlm_avx512_quantized_many(const tlm_matrix *w, const tlm_input *in, uint32_t count, float *y,
                               size_t stride, uint32_t row_begin, uint32_t row_end)
{
    const tlm_quantized *m = &w->u.quantized;
    const bool fits = m->groups <= TLM_SUMS && w->in <= TLM_SPAN &&
                      (m->groups == 1 || m->group <= COLUMNS);
    const uint32_t at_once = fits ? TLM_SUMS / m->groups : 1;
    for (uint32_t i = 0, now; i < count; i += now) {
        now = tlm_least(at_once, count - i);
        if (fits && now > 1)
            some_inputs(w, in + i, now, y + i * stride, stride, row_begin, row_end);
        else
            tlm_avx512_quantized(w, in + i, y + i * stride, row_begin, row_end);
    }
}

#endif
