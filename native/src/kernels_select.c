/* Which kernels a machine can run. */
#include "kernels_inside.h"

#if TLM_X86
#include <cpuid.h>
#endif

static const tlm_kernels portable = {
    "portable",           tlm_portable_round_input,  tlm_portable_quantized,
    tlm_portable_dense,   tlm_portable_codebook,     tlm_portable_binary_codes,
    tlm_portable_product_codes, tlm_portable_sparse, tlm_portable_block_sparse,
    tlm_portable_sigmoid, tlm_portable_tanh,         tlm_portable_max,
    tlm_portable_sum_exp,
};

#if TLM_X86
/* What has no AVX-512 code yet runs as plain C. */
static const tlm_kernels avx512 = {
    "avx512vnni",       tlm_avx512_round_input,  tlm_avx512_quantized,    tlm_avx512_dense,
    tlm_portable_codebook, tlm_portable_binary_codes, tlm_portable_product_codes, tlm_portable_sparse,
    tlm_portable_block_sparse, tlm_avx512_sigmoid, tlm_avx512_tanh,         tlm_avx512_max,
    tlm_avx512_sum_exp,
};

/* What the system saves when it switches threads. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* 0: neither, 1: AVX2 with FMA and F16C, 2: also AVX-512 F, DQ, BW, VL and VNNI.
   No kernels ask for level 1 yet. */
static int x86_level(void)
{
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };
    const uint32_t first = FMA | OSXSAVE | AVX | F16C;
    const uint32_t bmi1 = 1u << 3, avx2_bit = 1u << 5, bmi2 = 1u << 8;
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    const uint32_t second = bmi1 | avx2_bit | bmi2, wide = f | dq | bw | vl, vnni = 1u << 11;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & first) != first)
        return 0;
    const uint64_t state = saved_state();
    if ((state & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & second) != second)
        return 0;
    return (state & 0xe0) == 0xe0 && (b & wide) == wide && (c & vnni) ? 2 : 1;
}
#endif

const tlm_kernels *tlm_kernels_named(const char *name)
{
    if (strcmp(name, portable.name) == 0)
        return &portable;
#if TLM_X86
    if (strcmp(name, avx512.name) == 0 && x86_level() >= 2)
        return &avx512;
#endif
    return NULL;
}

const tlm_kernels *tlm_kernels_best(void)
{
#if TLM_X86
    if (x86_level() >= 2)
        return &avx512;
#endif
    return &portable;
}
