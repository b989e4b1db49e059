/* Registers of 128 bits with one set of names, for NEON and WebAssembly. */
#ifndef TLM_KERNELS_SIMD_H
#define TLM_KERNELS_SIMD_H

#include "kernels_inside.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__) && (defined(__GNUC__) || defined(__clang__))
#define TLM_NEON 1
#else
#define TLM_NEON 0
#endif
#if defined(__wasm_simd128__)
#define TLM_WASM 1
#else
#define TLM_WASM 0
#endif
#define TLM_SIMD (TLM_NEON || TLM_WASM)

#if TLM_SIMD

void tlm_simd_round_input(const float *x, uint32_t n, int8_t *q, float *scale);
void tlm_simd_sigmoid(float *x, uint32_t n);
void tlm_simd_tanh(float *x, uint32_t n);
float tlm_simd_max(const float *x, uint32_t n);
float tlm_simd_sum_exp(const float *x, uint32_t n, float shift);
TLM_CELL_FUNCTIONS(tlm_simd)
tlm_product tlm_simd_dense, tlm_simd_codebook, tlm_simd_binary_codes;
#if TLM_NEON
tlm_product tlm_neon_quantized, tlm_neondot_quantized;
#else
tlm_product tlm_wasm_quantized;
#endif

#define SIMD static inline __attribute__((always_inline))

#if TLM_NEON
#include <arm_neon.h>

typedef float32x4_t f4;
typedef int32x4_t i4;
typedef uint32x4_t mask4;
typedef uint8x16_t b16;

SIMD f4 f4_load(const float *at) { return vld1q_f32(at); }
SIMD void f4_store(float *at, f4 a) { vst1q_f32(at, a); }
SIMD f4 f4_all(float a) { return vdupq_n_f32(a); }
SIMD f4 f4_add(f4 a, f4 b) { return vaddq_f32(a, b); }
SIMD f4 f4_sub(f4 a, f4 b) { return vsubq_f32(a, b); }
SIMD f4 f4_mul(f4 a, f4 b) { return vmulq_f32(a, b); }
SIMD f4 f4_div(f4 a, f4 b) { return vdivq_f32(a, b); }
SIMD f4 f4_abs(f4 a) { return vabsq_f32(a); }
SIMD f4 f4_madd(f4 a, f4 b, f4 sum) { return vfmaq_f32(sum, a, b); }
SIMD f4 f4_msub(f4 a, f4 b, f4 from) { return vfmsq_f32(from, a, b); }
/* The greater, or b where a is NaN. */
SIMD f4 f4_max_number(f4 a, f4 b) { return vmaxnmq_f32(a, b); }
/* NaN in a stays. */
SIMD f4 f4_at_least(f4 a, f4 least) { return vmaxq_f32(a, least); }
SIMD f4 f4_at_most(f4 a, f4 most) { return vminq_f32(a, most); }
SIMD mask4 f4_less(f4 a, f4 b) { return vcltq_f32(a, b); }
SIMD f4 f4_choose(mask4 where, f4 a, f4 b) { return vbslq_f32(where, a, b); }
SIMD f4 f4_with_sign(f4 size, f4 sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, size); }
SIMD float f4_sum(f4 a) { return vaddvq_f32(a); }
SIMD float f4_greatest(f4 a) { return vmaxnmvq_f32(a); }
SIMD f4 f4_halves(const uint16_t *at) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))); }
/* To the nearest integer, half to even. */
SIMD i4 f4_round(f4 a) { return vcvtnq_s32_f32(a); }
SIMD f4 f4_from_i4(i4 a) { return vcvtq_f32_s32(a); }
SIMD f4 f4_power_of_2(i4 n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
/* The sum of all in double. */
SIMD double f4_sum_wide(f4 a)
{
    return vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)));
}

SIMD i4 i4_load(const int32_t *at) { return vld1q_s32(at); }
SIMD void i4_store(int32_t *at, i4 a) { vst1q_s32(at, a); }
SIMD i4 i4_all(int32_t a) { return vdupq_n_s32(a); }
SIMD i4 i4_add(i4 a, i4 b) { return vaddq_s32(a, b); }
SIMD i4 i4_sub(i4 a, i4 b) { return vsubq_s32(a, b); }
SIMD i4 i4_mul(i4 a, i4 b) { return vmulq_s32(a, b); }
/* Four bytes with signs. */
SIMD i4 i4_bytes(const int8_t *at)
{
    int32_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8((uint32_t)bytes))));
}
/* Four numbers in -128 .. 127 as bytes. */
SIMD void i4_store_bytes(int8_t *at, i4 a)
{
    const int16x4_t narrow = vmovn_s32(a);
    const int32_t bytes =
        vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(narrow, narrow))), 0);
    memcpy(at, &bytes, sizeof bytes);
}

SIMD b16 b16_load(const void *at) { return vld1q_u8(at); }
SIMD b16 b16_all(uint8_t a) { return vdupq_n_u8(a); }
SIMD b16 b16_and(b16 a, b16 b) { return vandq_u8(a, b); }
SIMD b16 b16_or(b16 a, b16 b) { return vorrq_u8(a, b); }
/* Right by n bits; what comes in from above has no meaning. */
SIMD b16 b16_right(b16 a, unsigned n) { return vshlq_u8(a, vdupq_n_s8((int8_t)(0 - (int)n))); }
/* Bit n of each byte becomes bit 2; the others have no meaning. */
SIMD b16 b16_bit_to_2(b16 a, unsigned n) { return vshlq_u8(a, vdupq_n_s8((int8_t)(2 - (int)n))); }

#else /* WebAssembly */
#include <wasm_simd128.h>

typedef v128_t f4;
typedef v128_t i4;
typedef v128_t mask4;
typedef v128_t b16;

SIMD f4 f4_load(const float *at) { return wasm_v128_load(at); }
SIMD void f4_store(float *at, f4 a) { wasm_v128_store(at, a); }
SIMD f4 f4_all(float a) { return wasm_f32x4_splat(a); }
SIMD f4 f4_add(f4 a, f4 b) { return wasm_f32x4_add(a, b); }
SIMD f4 f4_sub(f4 a, f4 b) { return wasm_f32x4_sub(a, b); }
SIMD f4 f4_mul(f4 a, f4 b) { return wasm_f32x4_mul(a, b); }
SIMD f4 f4_div(f4 a, f4 b) { return wasm_f32x4_div(a, b); }
SIMD f4 f4_abs(f4 a) { return wasm_f32x4_abs(a); }
SIMD f4 f4_madd(f4 a, f4 b, f4 sum) { return f4_add(f4_mul(a, b), sum); }
SIMD f4 f4_msub(f4 a, f4 b, f4 from) { return f4_sub(from, f4_mul(a, b)); }
/* The greater, or b where a is NaN. */
SIMD f4 f4_max_number(f4 a, f4 b) { return wasm_f32x4_pmax(b, a); }
/* NaN in a stays. */
SIMD f4 f4_at_least(f4 a, f4 least) { return wasm_f32x4_pmax(a, least); }
SIMD f4 f4_at_most(f4 a, f4 most) { return wasm_f32x4_pmin(a, most); }
SIMD mask4 f4_less(f4 a, f4 b) { return wasm_f32x4_lt(a, b); }
SIMD f4 f4_choose(mask4 where, f4 a, f4 b) { return wasm_v128_bitselect(a, b, where); }
SIMD f4 f4_with_sign(f4 size, f4 sign)
{
    return wasm_v128_bitselect(sign, size, wasm_i32x4_splat((int32_t)0x80000000));
}
SIMD float f4_sum(f4 a)
{
    return (wasm_f32x4_extract_lane(a, 0) + wasm_f32x4_extract_lane(a, 2)) +
           (wasm_f32x4_extract_lane(a, 1) + wasm_f32x4_extract_lane(a, 3));
}
SIMD float f4_greatest(f4 a)
{
    a = wasm_f32x4_pmax(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    a = wasm_f32x4_pmax(a, wasm_i32x4_shuffle(a, a, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(a, 0);
}
/* A product by 2^112 moves the exponent and makes small numbers normal; what is not finite keeps
   an exponent of ones. */
SIMD f4 f4_widened_halves(v128_t half)
{
    const v128_t size = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_splat(0x7fff)), 13);
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_splat(0x8000)), 16);
    const v128_t other = wasm_v128_and(wasm_i32x4_gt(size, wasm_i32x4_splat(0x0f7fffff)),
                                       wasm_i32x4_splat(0x7f800000));
    return wasm_v128_or(wasm_v128_or(wasm_f32x4_mul(size, wasm_f32x4_splat(0x1p112f)), sign),
                        other);
}
SIMD f4 f4_halves(const uint16_t *at) { return f4_widened_halves(wasm_u32x4_load16x4(at)); }
/* To the nearest integer, half to even. */
SIMD i4 f4_round(f4 a) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(a)); }
SIMD f4 f4_from_i4(i4 a) { return wasm_f32x4_convert_i32x4(a); }
SIMD f4 f4_power_of_2(i4 n)
{
    return wasm_i32x4_shl(wasm_i32x4_add(n, wasm_i32x4_splat(127)), 23);
}
/* The sum of all in double. */
SIMD double f4_sum_wide(f4 a)
{
    const v128_t high = wasm_f64x2_promote_low_f32x4(wasm_i32x4_shuffle(a, a, 2, 3, 2, 3));
    const v128_t sum = wasm_f64x2_add(wasm_f64x2_promote_low_f32x4(a), high);
    return wasm_f64x2_extract_lane(sum, 0) + wasm_f64x2_extract_lane(sum, 1);
}

SIMD i4 i4_load(const int32_t *at) { return wasm_v128_load(at); }
SIMD void i4_store(int32_t *at, i4 a) { wasm_v128_store(at, a); }
SIMD i4 i4_all(int32_t a) { return wasm_i32x4_splat(a); }
SIMD i4 i4_add(i4 a, i4 b) { return wasm_i32x4_add(a, b); }
SIMD i4 i4_sub(i4 a, i4 b) { return wasm_i32x4_sub(a, b); }
SIMD i4 i4_mul(i4 a, i4 b) { return wasm_i32x4_mul(a, b); }
/* Four bytes with signs. */
SIMD i4 i4_bytes(const int8_t *at)
{
    return wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(at)));
}
/* Four numbers in -128 .. 127 as bytes. */
SIMD void i4_store_bytes(int8_t *at, i4 a)
{
    const v128_t narrow = wasm_i16x8_narrow_i32x4(a, a);
    wasm_v128_store32_lane(at, wasm_i8x16_narrow_i16x8(narrow, narrow), 0);
}

SIMD b16 b16_load(const void *at) { return wasm_v128_load(at); }
SIMD b16 b16_all(uint8_t a) { return wasm_u8x16_splat(a); }
SIMD b16 b16_and(b16 a, b16 b) { return wasm_v128_and(a, b); }
SIMD b16 b16_or(b16 a, b16 b) { return wasm_v128_or(a, b); }
/* Right by n bits; what comes in from above has no meaning (x86 cannot shift single bytes). */
SIMD b16 b16_right(b16 a, unsigned n) { return wasm_u16x8_shr(a, n); }
/* Bit n of each byte becomes bit 2; the others have no meaning. */
SIMD b16 b16_bit_to_2(b16 a, unsigned n) { return wasm_i16x8_shl(wasm_u16x8_shr(a, n), 2); }
#endif

#endif
#endif
