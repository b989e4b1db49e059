/* Bit planes with registers of 128 bits: 16 rows at a time, 16 values looked up by a shuffle of
   bytes. */
#include "kernels_simd.h"

#if TLM_SIMD

#if TLM_NEON
typedef int16x8_t i8;
SIMD b16 look_up(b16 table, b16 at) { return vqtbl1q_u8(table, at); }
SIMD b16 zip_low(b16 a, b16 b) { return vzip1q_u8(a, b); }
SIMD b16 zip_high(b16 a, b16 b) { return vzip2q_u8(a, b); }
SIMD i8 i8_from(b16 a) { return vreinterpretq_s16_u8(a); }
SIMD i8 i8_all(int16_t a) { return vdupq_n_s16(a); }
SIMD i8 i8_add(i8 a, i8 b) { return vaddq_s16(a, b); }
SIMD i4 i4_low(i8 a) { return vmovl_s16(vget_low_s16(a)); }
SIMD i4 i4_high(i8 a) { return vmovl_high_s16(a); }
SIMD b16 b16_add(b16 a, b16 b) { return vaddq_u8(a, b); }
SIMD b16 high_nibbles(b16 a) { return vshrq_n_u8(a, 4); }
/* The first and the last four of eight halves. */
SIMD f4 f4_low_halves(b16 a) { return vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(a))); }
SIMD f4 f4_high_halves(b16 a) { return vcvt_f32_f16(vreinterpret_f16_u8(vget_high_u8(a))); }
#else
typedef v128_t i8;
SIMD b16 look_up(b16 table, b16 at) { return wasm_i8x16_swizzle(table, at); }
SIMD b16 zip_low(b16 a, b16 b)
{
    return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
SIMD b16 zip_high(b16 a, b16 b)
{
    return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
SIMD i8 i8_from(b16 a) { return a; }
SIMD i8 i8_all(int16_t a) { return wasm_i16x8_splat(a); }
SIMD i8 i8_add(i8 a, i8 b) { return wasm_i16x8_add(a, b); }
SIMD i4 i4_low(i8 a) { return wasm_i32x4_extend_low_i16x8(a); }
SIMD i4 i4_high(i8 a) { return wasm_i32x4_extend_high_i16x8(a); }
SIMD b16 b16_add(b16 a, b16 b) { return wasm_i8x16_add(a, b); }
SIMD b16 high_nibbles(b16 a) { return b16_and(b16_right(a, 4), b16_all(15)); }
/* The first and the last four of eight halves. */
SIMD f4 f4_low_halves(b16 a) { return f4_widened_halves(wasm_u32x4_extend_low_u16x8(a)); }
SIMD f4 f4_high_halves(b16 a) { return f4_widened_halves(wasm_u32x4_extend_high_u16x8(a)); }
#endif

/* Eight bytes, or sixteen, of nibbles; a block of 16 rows has only eight. */
SIMD b16 load_bytes(const uint8_t *at, uint32_t bytes)
{
    uint8_t part[16] = {0};
    if (bytes >= 16)
        return b16_load(at);
    memcpy(part, at, 8);
    return b16_load(part);
}

/* The low and the high bytes of the 16 sums of four inputs with signs. */
static void sums_with_signs(const int8_t *q, uint8_t low[16], uint8_t high[16])
{
    int sums[16];
    sums[0] = -q[0] - q[1] - q[2] - q[3];
    for (unsigned c = 0; c < 4; c++)
        for (unsigned signs = 0; signs < 1u << c; signs++)
            sums[(1u << c) + signs] = sums[signs] + 2 * q[c];
    for (unsigned signs = 0; signs < 16; signs++) {
        low[signs] = (uint8_t)((unsigned)sums[signs] & 255u);
        high[signs] = (uint8_t)((unsigned)sums[signs] >> 8 & 255u);
    }
}

/* Sixteen rows, the low or the high nibbles of a block's bytes, in 16-bit sums. */
SIMD void add_nibbles(i8 s[2], b16 at, b16 low, b16 high)
{
    const b16 a = look_up(low, at), b = look_up(high, at);
    s[0] = i8_add(s[0], i8_from(zip_low(a, b)));
    s[1] = i8_add(s[1], i8_from(zip_high(a, b)));
}

SIMD void widen(int32_t *sums, const i8 s[2])
{
    for (unsigned i = 0; i < 2; i++) {
        int32_t *at = sums + 8 * i;
        i4_store(at, i4_add(i4_load(at), i4_low(s[i])));
        i4_store(at + 4, i4_add(i4_load(at + 4), i4_high(s[i])));
    }
}

/* 64 sums of at most 4 * 127 fit 16 bits. */
enum { QUADS = 64 };

/* Add one plane over some quads to sums of `rows` rows; a pass is 16 bytes of each quad. */
static void add_plane(int32_t *sums, const uint8_t *bytes, size_t stride, uint32_t rows,
                      uint8_t tables[][2][16], uint32_t quads)
{
    const uint32_t half = rows / 2;
    const b16 mask = b16_all(15);
    for (uint32_t r = 0; r < half; r += 16) {
        i8 s[4];
        UNROLL for (int i = 0; i < 4; i++) s[i] = i8_all(0);
        const uint8_t *at = bytes + r;
        for (uint32_t quad = 0; quad < quads; quad++, at += stride) {
            const b16 nibbles = load_bytes(at, half - r);
            const b16 low = b16_load(tables[quad][0]), high = b16_load(tables[quad][1]);
            add_nibbles(s, b16_and(nibbles, mask), low, high);
            add_nibbles(s + 2, high_nibbles(nibbles), low, high);
        }
        /* Where 8 bytes are left, the other 8 looked up nothing that counts. */
        int32_t part[32] = {0};
        widen(part, s);
        widen(part + 16, s + 2);
        for (uint32_t i = 0; i < tlm_least(16, half - r); i++) {
            sums[r + i] += part[i];
            sums[half + r + i] += part[16 + i];
        }
    }
}

void tlm_simd_binary_codes(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                           uint32_t row_end)
{
    const tlm_binary_codes *m = &w->u.binary_codes;
    const uint32_t quads = tlm_ceil_div(w->in, 4), bits = m->bits;
    uint8_t tables[QUADS][2][16];
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row), half = rows / 2;
        const uint8_t *block = m->codes + (size_t)row * quads * bits / 2;
        const uint16_t *scales = m->scales + (size_t)row * m->groups * bits;
        const size_t stride = (size_t)bits * half;
        float totals[TLM_BLOCK_ROWS] = {0};
        for (uint32_t g = 0; g < m->groups; g++) {
            const uint32_t begin = g * m->group;
            const uint32_t end = begin + tlm_least(m->group, w->in - begin);
            const uint32_t last = tlm_ceil_div(end, 4);
            int32_t sums[4][TLM_BLOCK_ROWS] = {{0}};
            for (uint32_t first = begin / 4; first < last; first += QUADS) {
                const uint32_t count = tlm_least(QUADS, last - first);
                for (uint32_t i = 0; i < count; i++)
                    sums_with_signs(in->q + 4 * (size_t)(first + i), tables[i][0], tables[i][1]);
                for (uint32_t p = 0; p < bits; p++)
                    add_plane(sums[p], block + first * stride + (size_t)p * half, stride, rows,
                              tables, count);
            }
            for (uint32_t p = 0; p < bits; p++, scales += rows)
                for (uint32_t r = 0; r < rows; r += 4)
                    f4_store(totals + r, f4_madd(f4_from_i4(i4_load(sums[p] + r)),
                                                 f4_halves(scales + r), f4_load(totals + r)));
        }
        const f4 scale = f4_all(in->scale);
        for (uint32_t r = 0; r < rows; r += 4)
            f4_store(y + row + r, f4_mul(scale, f4_load(totals + r)));
    }
}

/* The float16 values of sixteen codes, times x, onto the sums of sixteen rows. */
SIMD void add_values(f4 s[4], b16 codes, b16 low, b16 high, f4 x)
{
    const b16 a = look_up(low, codes), b = look_up(high, codes);
    const b16 first = zip_low(a, b), last = zip_high(a, b);
    s[0] = f4_madd(f4_low_halves(first), x, s[0]);
    s[1] = f4_madd(f4_high_halves(first), x, s[1]);
    s[2] = f4_madd(f4_low_halves(last), x, s[2]);
    s[3] = f4_madd(f4_high_halves(last), x, s[3]);
}

/* Up to 16 rows, whose nibbles are the high ones (`upper`) or the low ones of `bytes`; `left`
   bytes are there. Planes of a quad are `half` bytes apart. */
SIMD void codebook_rows(float *y, const uint8_t *bytes, uint32_t half, uint32_t left,
                        unsigned bits, bool upper, uint8_t tables[2][16], const tlm_input *in,
                        uint32_t columns)
{
    const b16 low = b16_load(tables[0]), high = b16_load(tables[1]), one = b16_all(1);
    f4 s[4];
    UNROLL for (int i = 0; i < 4; i++) s[i] = f4_all(0);
    for (uint32_t k = 0; k < columns; k += 4, bytes += (size_t)bits * half) {
        b16 planes[4];
        UNROLL for (unsigned p = 0; p < bits; p++) {
            const b16 nibbles = load_bytes(bytes + (size_t)p * half, left);
            planes[p] = upper ? high_nibbles(nibbles) : nibbles;
        }
        for (uint32_t c = 0; c < tlm_least(4, columns - k); c++) {
            b16 codes = b16_all(0);
            UNROLL for (unsigned p = bits; p-- > 0;) {
                codes = b16_or(b16_add(codes, codes), b16_and(planes[p], one));
                planes[p] = b16_right(planes[p], 1);
            }
            add_values(s, codes, low, high, f4_all(in->x[k + c]));
        }
    }
    float sums[16];
    UNROLL for (int i = 0; i < 4; i++) f4_store(sums + 4 * i, s[i]);
    memcpy(y, sums, tlm_least(16, left) * sizeof *y);
}

SIMD void codebook(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                   uint32_t row_end, unsigned bits)
{
    const tlm_codebook *m = &w->u.codebook;
    const uint32_t quads = tlm_ceil_div(w->in, 4);
    uint8_t tables[2][16] = {{0}};
    for (uint32_t c = 0; c < 1u << bits; c++) {
        tables[0][c] = (uint8_t)(m->values[c] & 255u);
        tables[1][c] = (uint8_t)(m->values[c] >> 8);
    }
    for (uint32_t row = row_begin; row < row_end; row += TLM_BLOCK_ROWS) {
        const uint32_t rows = tlm_rows_of_block(w, row), half = rows / 2;
        const uint8_t *block = m->codes + (size_t)row * quads * bits / 2;
        for (uint32_t r = 0; r < half; r += 16) {
            codebook_rows(y + row + r, block + r, half, half - r, bits, false, tables, in, w->in);
            codebook_rows(y + row + half + r, block + r, half, half - r, bits, true, tables, in,
                          w->in);
        }
    }
}

/* A list for each row, or more values than a shuffle of bytes looks up, are left to plain C. */
void tlm_simd_codebook(const tlm_matrix *w, const tlm_input *in, float *y, uint32_t row_begin,
                       uint32_t row_end)
{
    const tlm_codebook *m = &w->u.codebook;
    if (m->per_row || m->bits > 4)
        tlm_portable_codebook(w, in, y, row_begin, row_end);
    else if (m->bits == 4)
        codebook(w, in, y, row_begin, row_end, 4);
    else if (m->bits == 3)
        codebook(w, in, y, row_begin, row_end, 3);
    else if (m->bits == 2)
        codebook(w, in, y, row_begin, row_end, 2);
    else
        codebook(w, in, y, row_begin, row_end, 1);
}

#endif
