/* Rows so long that a 32-bit sum of their products would overflow, all numbers at their greatest:
   every set of kernels must sum them in parts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/kernels.h"

#ifdef __wasm__ /* node 20 cannot end a program that took more memory */
enum { ROWS = 80, COLUMNS = 70001 };
#else
enum { ROWS = 80, COLUMNS = 200001 };
#endif
enum { PADDED = (COLUMNS + 63) / 64 * 64, BLOCKS = (COLUMNS + 3) / 4 };

static int checks, failures;

static void check(const char *what, const tlm_kernels *set, tlm_product *product, const tlm_matrix *w,
                  const tlm_input *in, double expected)
{
    static float y[ROWS];
    product(w, in, y, 0, ROWS);
    for (int r = 0; r < ROWS; r++) {
        checks++;
        if (!(fabs((double)y[r] / expected - 1) < 1e-6)) {
            failures++;
            printf("FAILED %s, %s, row %d: %.9g, expected %.9g\n", what, set->name, r, (double)y[r], expected);
            break;
        }
    }
}

int main(void)
{
    static const char *const NAMES[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
    uint8_t *codes = malloc((size_t)ROWS * PADDED);
    float *x = malloc(COLUMNS * sizeof *x);
    int8_t *q = calloc(PADDED, 1);
    if (!codes || !x || !q)
        return 1;
    for (int k = 0; k < COLUMNS; k++)
        x[k] = 127, q[k] = 127;
    uint16_t scales[ROWS];
    int8_t zeros[ROWS];
    for (int r = 0; r < ROWS; r++)
        scales[r] = 0x3c00, zeros[r] = -128;
    const tlm_input in = {x, q, 1, COLUMNS};
    const double inputs = 127.0 * COLUMNS;
    for (int i = 0; i < (int)(sizeof NAMES / sizeof *NAMES); i++) {
        const tlm_kernels *set = tlm_kernels_named(NAMES[i]);
        if (!set)
            continue;
        for (unsigned bits = 2; bits <= 8; bits = bits == 4 ? 8 : bits + 1)
            for (unsigned mode = 0; mode < 4; mode++) {
                /* Two's complement of 127 in 8 bits, all bits set in fewer: the greatest code. */
                memset(codes, bits == 8 ? 127 : 255, (size_t)ROWS * PADDED);
                const double level = (1 << (bits - 1)) - 1 + (mode & 1 ? 128 : 0);
                tlm_matrix w = {.form = TLM_QUANTIZED, .out = ROWS, .in = COLUMNS};
                w.u.quantized = (tlm_quantized){codes, scales, mode & 1 ? zeros : NULL,
                                                mode & 2 ? 0 : COLUMNS, 1, (uint8_t)bits, false};
                check("quantized", set, set->quantized, &w, &in, inputs * level);
            }
        memset(codes, 255, (size_t)ROWS * PADDED);
        tlm_matrix w = {.form = TLM_BINARY_CODES, .out = ROWS, .in = COLUMNS};
        w.u.binary_codes = (tlm_binary_codes){codes, scales, COLUMNS, 1, 1};
        check("binary codes", set, set->binary_codes, &w, &in, inputs);
        /* Every place stored, value 127. */
        const uint32_t starts[] = {0, 0, 64 * COLUMNS, 8 * COLUMNS, ROWS * COLUMNS, 10 * COLUMNS};
        uint8_t *values = malloc((size_t)ROWS * COLUMNS);
        if (!values)
            return 1;
        memset(values, 127, (size_t)ROWS * COLUMNS);
        w = (tlm_matrix){.form = TLM_SPARSE_QUANTIZED, .out = ROWS, .in = COLUMNS};
        w.u.sparse = (tlm_sparse){codes, starts, {NULL, values, scales, 8, false}, 2, ROWS * COLUMNS, TLM_BITMAP};
        check("sparse", set, set->sparse, &w, &in, inputs * 127);
        memset(codes, 127, (size_t)ROWS * PADDED);
        uint8_t bitmap[64 * 1024];
        memset(bitmap, 255, sizeof bitmap);
        w = (tlm_matrix){.form = TLM_BLOCK_SPARSE_QUANTIZED, .out = ROWS, .in = COLUMNS};
        w.u.block_sparse = (tlm_block_sparse){bitmap, {NULL, codes, scales, 8, false}, 5 * BLOCKS, 5, BLOCKS, 16, 4};
        check("block sparse", set, set->block_sparse, &w, &in, inputs * 127);
        free(values);
    }
    free(codes), free(x), free(q);
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0;
}
