/* Time of one product with the output layer and cell of a word model: 16 H + 10000 rows, H columns.
   Prints the best of many runs, with the bytes of codes and scales that one run reads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../src/kernels.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *aligned(size_t bytes)
{
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!block)
        exit(1);
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)block)[i] = (unsigned char)rand();
    return block;
}

static void bench(const tlm_kernels *k, uint32_t h, unsigned bits, uint32_t group)
{
    const uint32_t rows = (16 * h + 10000 + 63) / 64 * 64;
    const uint32_t groups = group ? (h + group - 1) / group : 1;
    const size_t runs = bits == 3 ? (h + 31) / 32 + (h + 15) / 16 : (h + 32 / bits - 1) / (32 / bits);
    const size_t code_bytes = (size_t)rows * 4 * runs, scale_count = (size_t)rows * groups;
    uint16_t *scales = aligned(scale_count * 2);
    for (size_t i = 0; i < scale_count; i++)
        scales[i] = 0x2c00;
    uint8_t *codes = aligned(code_bytes);
    float *x = aligned(h * 4), *y = aligned(rows * 4);
    int8_t *q = aligned(h + 64);
    for (uint32_t i = 0; i < h; i++)
        x[i] = (float)(rand() % 1000) - 500;
    tlm_input in = {x, q, 0, h};
    k->round_input(x, h, q, &in.scale);
    tlm_matrix w = {.form = TLM_QUANTIZED, .out = rows, .in = h};
    w.u.quantized = (tlm_quantized){codes, scales, NULL, group ? group : h, groups,
                                    (uint8_t)bits, false};
    double best = 1e9;
    const double start = now();
    for (int i = 0; i < 100 && now() - start < 0.5; i++) {
        const double t = now();
        k->quantized(&w, &in, y, 0, rows);
        const double took = now() - t;
        best = took < best ? took : best;
    }
    const double bytes = (double)code_bytes + 2 * (double)scale_count;
    printf("%-11s H %4u, %u bits, group %3u: %6.2f MB %8.1f us %6.1f GB/s\n", k->name, h, bits,
           group, bytes / 1e6, best * 1e6, bytes / best / 1e9);
    free(scales), free(codes), free(x), free(y), free(q);
}

int main(void)
{
    static const char *const NAMES[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
    static const uint32_t SIZES[] = {200, 650, 1500};
    for (int i = 0; i < 6; i++) {
        const tlm_kernels *k = tlm_kernels_named(NAMES[i]);
        for (int s = 0; k && s < 3; s++) {
            bench(k, SIZES[s], 8, 0);
            bench(k, SIZES[s], 4, 32);
            bench(k, SIZES[s], 3, 0);
            bench(k, SIZES[s], 2, 32);
        }
    }
    return 0;
}
