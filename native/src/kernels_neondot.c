/* Integer codes with the dot products of four bytes of ARMv8.2. sdot takes both sides with signs:
   codes of 8 bits are that, and smaller ones as stored are at most 15. */
#include "kernels_simd.h"

#if TLM_NEON

#ifdef __ARM_FEATURE_DOTPROD
#define TARGET
#elif defined(__clang__)
#define TARGET __attribute__((target("dotprod")))
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define QUANTIZED tlm_neondot_quantized
#define AT_ONCE 8 /* sums, codes and masks stay in the 32 registers */

typedef int8x16_t inputs;

SIMD inputs four(const int8_t *q)
{
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
}

SIMD TARGET int32x4_t add_signed(int32x4_t s, uint8x16_t w, inputs q)
{
#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_DOTPROD)
    /* These know the intrinsic only where the whole file may use it. */
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(s) : "w"(w), "w"(q));
    return s;
#else
    return vdotq_s32(s, vreinterpretq_s8_u8(w), q);
#endif
}

SIMD TARGET int32x4_t add_codes(int32x4_t s, uint8x16_t a, inputs p, uint8x16_t b, inputs q)
{
    return add_signed(add_signed(s, a, p), b, q);
}

#include "kernels_simd_quantized.h"

#endif
