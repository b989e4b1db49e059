/* Integer codes with the NEON of every 64-bit ARM: products of bytes in 16 bits, then pairs of
   them in 32. */
#include "kernels_simd.h"

#if TLM_NEON

#define TARGET
#define QUANTIZED tlm_neon_quantized
#define AT_ONCE 8 /* sums, codes and masks stay in the 32 registers */

typedef int8x16_t inputs;

SIMD inputs four(const int8_t *q)
{
    int32_t bytes;
    memcpy(&bytes, q, sizeof bytes);
    return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
}

/* Two products of 127 times 127 fit 16 bits. */
SIMD int32x4_t add_signed(int32x4_t s, uint8x16_t w, inputs q)
{
    const int8x16_t a = vreinterpretq_s8_u8(w);
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(q));
    return vpadalq_s16(s, vpaddq_s16(low, vmull_high_s8(a, q)));
}

/* Four products of 15 times 127 do. */
SIMD int32x4_t add_codes(int32x4_t s, uint8x16_t a, inputs p, uint8x16_t b, inputs q)
{
    const int8x16_t c = vreinterpretq_s8_u8(a), d = vreinterpretq_s8_u8(b);
    int16x8_t low = vmull_s8(vget_low_s8(c), vget_low_s8(p)), high = vmull_high_s8(c, p);
    low = vmlal_s8(low, vget_low_s8(d), vget_low_s8(q));
    high = vmlal_high_s8(high, d, q);
    return vpadalq_s16(s, vpaddq_s16(low, high));
}

#include "kernels_simd_quantized.h"

#endif
