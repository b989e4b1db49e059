/* Which kernels a machine can run. */
#include "kernels_inside.h"
#include "kernels_simd.h"

#if TLM_X86
#include <cpuid.h>
#endif
#if TLM_NEON && defined(__linux__)
#include <sys/auxv.h>
#elif TLM_NEON && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

/* `others`: whose products of block sparse matrices and of binary codes. */
#define KERNELS(prefix, others, shown, codes)        \
    {                                                \
        .name = shown,                               \
        .round_input = prefix##_round_input,         \
        .quantized = codes,                          \
        .dense = prefix##_dense,                     \
        .codebook = prefix##_codebook,               \
        .binary_codes = others##_binary_codes,       \
        .product_codes = prefix##_product_codes,     \
        .sparse = prefix##_sparse,                   \
        .block_sparse = others##_block_sparse,       \
        .quantized_many = prefix##_quantized_many,   \
        .dense_many = prefix##_dense_many,           \
        .sigmoid = prefix##_sigmoid,                 \
        .tanh = prefix##_tanh,                       \
        .lstm = prefix##_lstm,                       \
        .add_max = prefix##_add_max,                 \
        .subtract = prefix##_subtract,               \
        .max = prefix##_max,                         \
        .sum_exp = prefix##_sum_exp,                 \
    }

static const tlm_kernels portable = KERNELS(tlm_portable, tlm_portable, "portable", tlm_portable_quantized);

#if TLM_X86
static const tlm_kernels avx2 = KERNELS(tlm_avx2, tlm_avx2, "avx2", tlm_avx2_quantized);
static const tlm_kernels avx512 = KERNELS(tlm_avx512, tlm_avx2, "avx512vnni", tlm_avx512_quantized);
/* The same for AMD's processors, which fetch ahead better when nothing asks for lines. */
static const tlm_kernels avx2_near = KERNELS(tlm_avx2, tlm_avx2, "avx2", tlm_avx2_quantized_near);
static const tlm_kernels avx512_near =
    KERNELS(tlm_avx512, tlm_avx2, "avx512vnni", tlm_avx512_quantized_near);

static bool is_amd(void)
{
    uint32_t most, b, c, d;
    return __get_cpuid(0, &most, &b, &c, &d) && b == signature_AMD_ebx &&
           c == signature_AMD_ecx && d == signature_AMD_edx;
}

/* What the system saves when it switches threads. */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* 0: neither, 1: AVX2 with FMA, F16C, BMI and POPCNT, 2: also AVX-512 F, DQ, BW, VL and VNNI. */
static int x86_level(void)
{
    enum { FMA = 1 << 12, POPCNT = 1 << 23, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };
    const uint32_t first = FMA | POPCNT | OSXSAVE | AVX | F16C;
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

#if TLM_NEON
/* Single places come one by one, which plain C does as well. Product codes and whole blocks have
   no code of their own yet. */
#define NEON_TABLE(NAME, QUANTIZED)                                                              \
    {                                                                                            \
        .name = NAME, .round_input = tlm_simd_round_input, .quantized = QUANTIZED,               \
        .dense = tlm_simd_dense, .codebook = tlm_simd_codebook,                                  \
        .binary_codes = tlm_simd_binary_codes, .product_codes = tlm_portable_product_codes,      \
        .sparse = tlm_portable_sparse, .block_sparse = tlm_portable_block_sparse,                \
        .sigmoid = tlm_simd_sigmoid, .tanh = tlm_simd_tanh, .max = tlm_simd_max,                 \
        .sum_exp = tlm_simd_sum_exp, .lstm = tlm_simd_lstm, .add_max = tlm_simd_add_max,         \
        .subtract = tlm_simd_subtract                                                            \
    }
static const tlm_kernels neon = NEON_TABLE("neon", tlm_neon_quantized);
static const tlm_kernels neondot = NEON_TABLE("neondot", tlm_neondot_quantized);

static bool has_dot_products(void)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return false;
#endif
}
#endif

#if TLM_WASM
static const tlm_kernels wasm = {
    .name = "wasm",
    .round_input = tlm_simd_round_input,
    .quantized = tlm_wasm_quantized,
    .dense = tlm_simd_dense,
    .codebook = tlm_simd_codebook,
    .binary_codes = tlm_simd_binary_codes,
    .product_codes = tlm_portable_product_codes,
    .sparse = tlm_portable_sparse,
    .block_sparse = tlm_portable_block_sparse,
    .sigmoid = tlm_simd_sigmoid,
    .tanh = tlm_simd_tanh,
    .max = tlm_simd_max,
    .sum_exp = tlm_simd_sum_exp,
    .lstm = tlm_simd_lstm,
    .add_max = tlm_simd_add_max,
    .subtract = tlm_simd_subtract,
};
#endif

const tlm_kernels *tlm_kernels_named(const char *name)
{
    if (strcmp(name, portable.name) == 0)
        return &portable;
#if TLM_NEON
    if (strcmp(name, neon.name) == 0)
        return &neon;
    if (strcmp(name, neondot.name) == 0 && has_dot_products())
        return &neondot;
#endif
#if TLM_WASM
    if (strcmp(name, wasm.name) == 0)
        return &wasm;
#endif
#if TLM_X86
    if (strcmp(name, avx2.name) == 0 && x86_level() >= 1)
        return is_amd() ? &avx2_near : &avx2;
    if (strcmp(name, avx512.name) == 0 && x86_level() >= 2)
        return is_amd() ? &avx512_near : &avx512;
#endif
    return NULL;
}

const tlm_kernels *tlm_kernels_best(void)
{
#if TLM_NEON
    return has_dot_products() ? &neondot : &neon;
#elif TLM_WASM
    return &wasm;
#else
#if TLM_X86
    const int level = x86_level();
    if (level >= 1)
        return tlm_kernels_named(level >= 2 ? avx512.name : avx2.name);
#endif
    return &portable;
#endif
}
