/* Integer codes with the 128-bit registers of WebAssembly. Even and odd columns are taken apart,
   as numbers of 16 bits: the dot product of pairs then leaves one sum a row. */
#include "kernels_simd.h"

#if TLM_WASM

#define TARGET
#define QUANTIZED tlm_wasm_quantized
#define AT_ONCE 8 /* x86 has 16 registers */

typedef struct inputs {
    v128_t even, odd;
} inputs;

SIMD inputs four(const int8_t *q)
{
    const v128_t all = wasm_v128_load32_splat(q);
    return (inputs){wasm_i16x8_shr(wasm_i16x8_shl(all, 8), 8), wasm_i16x8_shr(all, 8)};
}

SIMD v128_t add_signed(v128_t s, v128_t w, inputs q)
{
    const v128_t even = wasm_i16x8_shr(wasm_i16x8_shl(w, 8), 8), odd = wasm_i16x8_shr(w, 8);
    s = wasm_i32x4_add(s, wasm_i32x4_dot_i16x8(even, q.even));
    return wasm_i32x4_add(s, wasm_i32x4_dot_i16x8(odd, q.odd));
}

SIMD v128_t add_unsigned(v128_t s, v128_t w, inputs q)
{
    const v128_t even = wasm_v128_and(w, wasm_i16x8_splat(255)), odd = wasm_u16x8_shr(w, 8);
    s = wasm_i32x4_add(s, wasm_i32x4_dot_i16x8(even, q.even));
    return wasm_i32x4_add(s, wasm_i32x4_dot_i16x8(odd, q.odd));
}

SIMD v128_t add_codes(v128_t s, v128_t a, inputs p, v128_t b, inputs q)
{
    return add_unsigned(add_unsigned(s, a, p), b, q);
}

#include "kernels_simd_quantized.h"

#endif
