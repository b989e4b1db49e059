/* Integer codes with registers of 128 bits: four rows of four columns. The file that includes
   this defines

     TARGET                           what functions are compiled for
     QUANTIZED                        the name of the product
     AT_ONCE                          registers of sums
     inputs, four(q)                  four inputs as the functions below take them
     add_signed(s, w, q)              s plus products with the bytes -127 .. 127 of w
     add_codes(s, a, p, b, q)         s plus products of a with p and b with q, of bytes 0 .. 15

   The codes are taken as stored; what was added to them is taken off in the end. */
#include "kernels_simd.h"

#define INLINE SIMD TARGET

/* What a product of some rows of a block needs. */
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

INLINE void span8(i4 *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const uint8_t *at = j->codes + begin / 4 * j->run;
    for (uint32_t k = begin; k < end; k += 4, at += j->run) {
        const inputs q = four(j->in->q + k);
        UNROLL for (int i = 0; i < n; i++) s[i] = add_signed(s[i], b16_load(at + 16 * i), q);
    }
}

/* Eight columns at a time from here on: groups begin and end at multiples of 8. */
INLINE void span4(i4 *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    const b16 mask = b16_all(15);
    const uint8_t *at = j->codes + begin / 8 * j->run;
    for (uint32_t k = begin; k < end; k += 8, at += j->run) {
        const inputs p = four(j->in->q + k), q = four(j->in->q + k + 4);
        UNROLL for (int i = 0; i < n; i++) {
            const b16 w = b16_load(at + 16 * i);
            s[i] = add_codes(s[i], b16_and(w, mask), p, b16_and(b16_right(w, 4), mask), q);
        }
    }
}

/* Columns 8 part to 8 part + 7 of a run of 16. `part` is a constant wherever this is called, here
   and below: WebAssembly's compilers take shifts by other numbers apart. */
INLINE void eight2(i4 *s, int n, const uint8_t *run, const int8_t *q, unsigned part)
{
    const b16 mask = b16_all(3);
    const inputs p = four(q), r = four(q + 4);
    UNROLL for (int i = 0; i < n; i++) {
        const b16 w = b16_load(run + 16 * i);
        s[i] = add_codes(s[i], b16_and(b16_right(w, 4 * part), mask), p,
                         b16_and(b16_right(w, 4 * part + 2), mask), r);
    }
}

INLINE void span2(i4 *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    for (uint32_t k = begin; k < end; k += 8) {
        const uint8_t *run = j->codes + k / 16 * j->run;
        if (k % 16 == 0)
            eight2(s, n, run, j->in->q + k, 0);
        else
            eight2(s, n, run, j->in->q + k, 1);
    }
}

/* Columns 8 part to 8 part + 7 of 32. */
INLINE void eight3(i4 *s, int n, const uint8_t *high, size_t run, const int8_t *q, unsigned part)
{
    const b16 two = b16_all(3), one = b16_all(4);
    const uint8_t *low = high + (1 + part / 2) * run;
    const unsigned shift = 4 * (part % 2);
    const inputs p = four(q), r = four(q + 4);
    UNROLL for (int i = 0; i < n; i++) {
        const b16 w = b16_load(low + 16 * i), h = b16_load(high + 16 * i);
        const b16 a = b16_or(b16_and(b16_right(w, shift), two),
                             b16_and(b16_bit_to_2(h, 2 * part), one));
        const b16 b = b16_or(b16_and(b16_right(w, shift + 2), two),
                             b16_and(b16_bit_to_2(h, 2 * part + 1), one));
        s[i] = add_codes(s[i], a, p, b, r);
    }
}

INLINE void span3(i4 *s, int n, const job *j, uint32_t begin, uint32_t end)
{
    for (uint32_t k = begin; k < end; k += 8) {
        const uint8_t *high = j->codes + k / 32 * 3 * j->run;
        const int8_t *q = j->in->q + k;
        switch (k % 32 / 8) {
        case 0: eight3(s, n, high, j->run, q, 0); break;
        case 1: eight3(s, n, high, j->run, q, 1); break;
        case 2: eight3(s, n, high, j->run, q, 2); break;
        default: eight3(s, n, high, j->run, q, 3); break;
        }
    }
}

INLINE void product(const job *j, unsigned bits, int n)
{
    const tlm_quantized *m = j->m;
    /* A zero point of the whole matrix is one more thing to take off. */
    const int32_t offset = tlm_code_offset(bits) + (m->zeros && !m->group ? m->zeros[0] : 0);
    const f4 only = f4_all(tlm_from_half(m->scales[0]));
    const uint16_t *scales = j->scales;
    const int8_t *zeros = j->zeros;
    f4 total[AT_ONCE];
    UNROLL for (int i = 0; i < n; i++) total[i] = f4_all(0);
    for (uint32_t g = 0; g < m->groups; g++) {
        const uint32_t stop = g * j->group + tlm_least(j->group, j->columns - g * j->group);
        for (uint32_t begin = g * j->group, end; begin < stop; begin = end) {
            end = begin + tlm_least(TLM_SPAN, stop - begin);
            const int32_t sum_q = j->sums ? j->sums[g] : tlm_sum_input(j->in->q + begin, end - begin);
            const i4 all_q = i4_all(sum_q);
            const i4 start = i4_mul(i4_all(-offset), all_q);
            i4 s[AT_ONCE];
            UNROLL for (int i = 0; i < n; i++) s[i] = start;
            if (bits == 8)
                span8(s, n, j, begin, end);
            else if (bits == 4)
                span4(s, n, j, begin, end);
            else if (bits == 3)
                span3(s, n, j, begin, end);
            else
                span2(s, n, j, begin, end);
            if (zeros) {
                UNROLL for (int i = 0; i < n; i++)
                    s[i] = i4_sub(s[i], i4_mul(i4_bytes(zeros + 4 * i), all_q));
            }
            if (m->mid_rise) {
                UNROLL for (int i = 0; i < n; i++) s[i] = i4_add(i4_add(s[i], s[i]), all_q);
            }
            UNROLL for (int i = 0; i < n; i++)
                total[i] = f4_madd(f4_from_i4(s[i]), m->group ? f4_halves(scales + 4 * i) : only, total[i]);
        }
        scales += j->rows;
        if (zeros)
            zeros += j->rows;
    }
    const f4 scale = f4_all(j->in->scale);
    UNROLL for (int i = 0; i < n; i++) f4_store(j->y + 4 * i, f4_mul(scale, total[i]));
}

TARGET static void many_rows(const job *j)
{
    switch (j->m->bits) {
    case 8: product(j, 8, AT_ONCE); break;
    case 4: product(j, 4, AT_ONCE); break;
    case 3: product(j, 3, AT_ONCE); break;
    default: product(j, 2, AT_ONCE); break;
    }
}

TARGET static void rows16(const job *j)
{
    switch (j->m->bits) {
    case 8: product(j, 8, 4); break;
    case 4: product(j, 4, 4); break;
    case 3: product(j, 3, 4); break;
    default: product(j, 2, 4); break;
    }
}

void QUANTIZED(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
               uint32_t row_end)
{
    const tlm_quantized *m = &w->u.quantized;
    const size_t row_bytes = tlm_runs(w->in, m->bits) * 4;
    int32_t sums[TLM_SUMS];
    const uint32_t group = m->group ? m->group : w->in;
    const bool keep = group <= TLM_SPAN && m->groups <= TLM_SUMS; /* else sums are made anew */
    if (keep)
        for (uint32_t g = 0; g < m->groups; g++)
            sums[g] = tlm_sum_input(in->q + g * group, tlm_least(group, w->in - g * group));
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row);
        for (uint32_t r = 0, step; r < rows; r += step) {
            step = rows - r >= 4 * AT_ONCE ? 4 * AT_ONCE : 16;
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
            };
            (step == 16 ? rows16 : many_rows)(&j);
        }
    }
}
