/* Times of products with each set of kernels and each form, random codes and half the places of
   block sparse, a tenth (gaps) or three tenths (bitmap) of sparse matrices stored. Prints the best
   of many runs, with the bytes that one run reads; of a batch the operations a second. */
#include "test_kernels_pack.c"

#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *bytes_of(size_t bytes)
{
    uint8_t *block = NULL;
    if (owned_count == 64 || posix_memalign((void **)&block, 64, bytes + 64))
        abort();
    for (size_t i = 0; i < bytes + 64; i += 4) {
        const uint32_t word = draw(0x80000000u) * 2654435761u;
        memcpy(block + i, &word, bytes + 64 - i < 4 ? bytes + 64 - i : 4);
    }
    return owned[owned_count++] = block;
}

static uint16_t *halves_of(size_t count)
{
    uint16_t *values = bytes_of(count * 2);
    for (size_t i = 0; i < count; i++)
        values[i] = (uint16_t)(0x2c00u | (values[i] & 0x83ffu));
    return values;
}

static float *floats_of(size_t count)
{
    float *values = bytes_of(count * 4);
    for (size_t i = 0; i < count; i++)
        values[i] = draw_float();
    return values;
}

enum { BATCH = 64 };
static const tlm_kernels *sets[6];
static int set_count;
static tlm_input inputs[BATCH];
static const char *only;

static void make_inputs(uint32_t columns)
{
    for (int i = 0; i < BATCH; i++) {
        static float x[BATCH][4096];
        static int8_t q[BATCH][4096];
        for (uint32_t k = 0; k < columns; k++)
            x[i][k] = draw_float();
        inputs[i] = (tlm_input){x[i], q[i], 0, columns};
        sets[0]->round_input(x[i], columns, q[i], &inputs[i].scale);
    }
}

static void time_one(const char *name, const tlm_matrix *w, double bytes, size_t member, size_t many)
{
    float *y = bytes_of(up(w->out, 16) * (size_t)BATCH * 4);
    for (int i = 0; i < set_count && (!only || strstr(name, only)); i++) {
        tlm_product *product;
        memcpy(&product, (const char *)sets[i] + member, sizeof product);
        double best = 1e9, start = now();
        for (int n = 0; n < 500 && now() - start < 0.3; n++) {
            const double t = now();
            product(w, inputs, y, 0, w->out);
            best = fmin(best, now() - t);
        }
        printf("%-22s %5u x %u %-11s %6.2f MB %9.1f us %6.1f GB/s", name, w->out, w->in, sets[i]->name,
               bytes / 1e6, best * 1e6, bytes / best / 1e9);
        if (many && i) {
            tlm_many *products;
            memcpy(&products, (const char *)sets[i] + many, sizeof products);
            if (products == NULL) {
                printf("\n");
                continue;
            }
            best = 1e9, start = now();
            for (int n = 0; n < 50 && now() - start < 0.5; n++) {
                const double t = now();
                products(w, inputs, BATCH, y, up(w->out, 16), 0, w->out);
                best = fmin(best, now() - t);
            }
            printf("   batch %d: %9.1f us %7.1f GOPS", BATCH, best * 1e6,
                   2.0 * BATCH * w->out * w->in / best / 1e9);
        }
        printf("\n");
    }
    free_all();
}
#define TIME(name, w, bytes, kernel) time_one(name, w, (double)(bytes), offsetof(tlm_kernels, kernel), 0)
#define TIME_MANY(name, w, bytes, kernel)                                                        \
    time_one(name, w, (double)(bytes), offsetof(tlm_kernels, kernel), offsetof(tlm_kernels, kernel##_many))

static void quantized(uint32_t rows, uint32_t columns, unsigned bits, uint32_t group)
{
    const uint32_t groups = group ? (columns + group - 1) / group : 1;
    const uint32_t runs = bits == 3 ? (columns + 31) / 32 + (columns + 15) / 16
                                    : (columns + 32 / bits - 1) / (32 / bits);
    const size_t codes = (size_t)up(rows, 16) * 4 * runs, scales = (size_t)up(rows, 16) * groups;
    tlm_matrix w = {.form = TLM_QUANTIZED, .out = rows, .in = columns};
    w.u.quantized = (tlm_quantized){bytes_of(codes), halves_of(scales), NULL, group ? group : columns,
                                    groups, (uint8_t)bits, false};
    char name[40];
    snprintf(name, sizeof name, "%u bits, group %u", bits, group);
    TIME_MANY(name, &w, codes + 2 * scales, quantized);
}

static void others(uint32_t rows, uint32_t columns)
{
    const size_t padded = up(rows, 16), quads = (columns + 3) / 4;
    char name[40];
    for (unsigned half = 0; half < 2; half++) {
        tlm_matrix w = {.form = TLM_DENSE, .out = rows, .in = columns};
        const size_t count = (size_t)rows * columns;
        w.u.dense.values = half ? (void *)halves_of(count) : (void *)floats_of(count);
        w.u.dense.half = half;
        TIME_MANY(half ? "dense float16" : "dense float32", &w, count * (half ? 2 : 4), dense);
    }
    for (unsigned kind = 0; kind < 7; kind++) {
        static const unsigned BITS[] = {1, 2, 3, 4, 8, 2, 4};
        const unsigned bits = BITS[kind];
        const size_t codes = padded * quads * bits / 2;
        tlm_matrix w = {.form = TLM_CODEBOOK, .out = rows, .in = columns};
        w.u.codebook = (tlm_codebook){bytes_of(codes), halves_of(padded << bits), (uint8_t)bits, kind > 4};
        snprintf(name, sizeof name, "codebook %u bits%s", bits, kind > 4 ? " a row" : "");
        TIME(name, &w, codes, codebook);
    }
    for (unsigned bits = 1; bits <= 4; bits++) {
        const size_t codes = padded * quads * bits / 2;
        tlm_matrix w = {.form = TLM_BINARY_CODES, .out = rows, .in = columns};
        w.u.binary_codes = (tlm_binary_codes){bytes_of(codes), halves_of(padded * bits), columns, 1, (uint8_t)bits};
        snprintf(name, sizeof name, "binary codes %u", bits);
        TIME(name, &w, codes, binary_codes);
    }
    for (uint32_t count = 16; count <= 256; count += 240) {
        const uint32_t blocks = (columns + 3) / 4;
        const size_t codes = padded * blocks / (count == 16 ? 2 : 1);
        tlm_matrix w = {.form = TLM_PRODUCT_CODES, .out = rows, .in = columns};
        w.u.product_codes = (tlm_product_codes){bytes_of(codes), halves_of((size_t)blocks * count * 4), NULL,
                                                blocks, count, 4, false};
        snprintf(name, sizeof name, "product codes %u of 4", count);
        TIME(name, &w, codes + (size_t)blocks * count * 8, product_codes);
    }
    static const unsigned KINDS[] = {32, 16, 8, 4};
    static const char *const NAMES[] = {"float32", "float16", "8 bits", "4 bits"};
    static double numbers[10000 * 650];
    static bool stored[10000 * 650];
    for (unsigned k = 0; k < 4; k++)
        for (int coding = TLM_BITMAP; coding <= TLM_GAPS4; coding++) {
            uint32_t count = 0;
            for (size_t i = 0; i < (size_t)rows * columns; i++)
                count += stored[i] = draw(100) < (coding == TLM_BITMAP ? 30 : 10);
            uint8_t *places = bytes_of(padded * columns);
            uint32_t *starts = bytes_of((rows / 64 + 2) * 8);
            const size_t bytes = pack_positions(stored, rows, columns, (tlm_positions)coding, places, starts);
            tlm_matrix w = {.form = KINDS[k] > 8 ? TLM_SPARSE : TLM_SPARSE_QUANTIZED, .out = rows, .in = columns};
            w.u.sparse = (tlm_sparse){places, starts, pack_values(KINDS[k], count, numbers), (rows + 63) / 64,
                                      count, (tlm_positions)coding};
            w.u.sparse.stored.scales = halves_of(padded);
            snprintf(name, sizeof name, "%s %s", coding == TLM_BITMAP ? "bitmap" : "gaps", NAMES[k]);
            TIME(name, &w, bytes + (size_t)count * KINDS[k] / 8, sparse);
        }
    for (unsigned k = 0; k < 4; k++) {
        const uint32_t down = (rows + 15) / 16, across = (columns + 3) / 4;
        uint8_t *bits = bytes_of((size_t)down * across / 8 + 1);
        size_t kept = 0;
        for (size_t b = 0; b < (size_t)down * across; b++)
            kept += bits[b / 8] >> b % 8 & 1;
        tlm_matrix w = {.form = KINDS[k] > 8 ? TLM_BLOCK_SPARSE : TLM_BLOCK_SPARSE_QUANTIZED,
                        .out = rows, .in = columns};
        w.u.block_sparse = (tlm_block_sparse){bits, pack_values(KINDS[k], kept * 64, numbers), kept, down,
                                              across, 16, 4};
        w.u.block_sparse.stored.scales = halves_of(padded);
        snprintf(name, sizeof name, "blocks 16x4 %s", NAMES[k]);
        TIME(name, &w, kept * 8 * KINDS[k], block_sparse);
    }
}

/* bench_kernels [part of a name] */
int main(int count, char **arguments)
{
    static const char *const SETS[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
    static const uint32_t ROWS[] = {2600, 10000};
    (void)pack_integers, (void)pack_planes, (void)pack_halves; /* only the test needs them */
    only = count > 1 ? arguments[1] : NULL;
    for (int i = 0; i < 6; i++)
        if ((sets[set_count] = tlm_kernels_named(SETS[i])) != NULL)
            set_count++;
    for (int r = 0; r < 2; r++) {
        make_inputs(650);
        for (unsigned bits = 2; bits <= 8; bits = bits == 4 ? 8 : bits + 1) {
            quantized(ROWS[r], 650, bits, 0);
            quantized(ROWS[r], 650, bits, 32);
        }
        others(ROWS[r], 650);
    }
    return 0;
}
