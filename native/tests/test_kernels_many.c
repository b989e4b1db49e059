/* Quantized products with several inputs are exactly those of each input alone, which test_kernels
   holds against double: wide matrices, whose columns a kernel may take in parts, and batches of
   sizes that it takes apart in different ways. */
#include "test_kernels_pack.c"

enum { ROWS = 130, MOST_COLUMNS = 2600, MOST_INPUTS = 65 };

static const tlm_kernels *sets[5];
static int set_count, checks, failures;
static tlm_input inputs[MOST_INPUTS];

static void expect(bool good, const char *what, const char *set, const tlm_matrix *w, uint32_t count)
{
    checks++;
    if (good)
        return;
    failures++;
    printf("FAILED %s, %s: %u columns, %u bits, group %u, %u inputs\n", what, set, w->in,
           w->u.quantized.bits, w->u.quantized.group, count);
}

static void make_inputs(uint32_t columns)
{
    static float x[MOST_COLUMNS];
    static int8_t q[MOST_INPUTS][MOST_COLUMNS + 64];
    for (int i = 0; i < MOST_INPUTS; i++) {
        for (uint32_t k = 0; k < columns; k++)
            x[k] = draw_float();
        inputs[i] = (tlm_input){NULL, q[i], 0, columns};
        tlm_kernels_best()->round_input(x, columns, q[i], &inputs[i].scale);
    }
}

static tlm_matrix matrix_of(uint32_t columns, unsigned bits, uint32_t group, unsigned mode)
{
    static int codes[ROWS * MOST_COLUMNS];
    static float scales[ROWS * MOST_COLUMNS / 8];
    const uint32_t groups = group ? (columns + group - 1) / group : 1, lists = group ? ROWS : 1;
    tlm_matrix w = {.form = TLM_QUANTIZED, .out = ROWS, .in = columns};
    tlm_quantized *m = &w.u.quantized;
    for (uint32_t i = 0; i < ROWS * columns; i++)
        codes[i] = (int)draw((1u << bits) - (bits == 8)) - (1 << (bits - 1)) + (bits == 8);
    m->codes = pack_integers(codes, ROWS, columns, bits);
    m->scales = pack_halves(scales, lists, groups, false);
    m->bits = (uint8_t)bits, m->group = group, m->groups = groups;
    m->mid_rise = mode == 1 && bits < 8;
    m->zeros = mode == 2 ? fresh(up(lists, 16) * groups) : NULL;
    return w;
}

static void check(const tlm_matrix *w)
{
    static const uint32_t COUNTS[] = {1, 2, 3, 5, 8, 9, 63, 64, 65};
    const uint32_t stride = up(ROWS, 16);
    float *alone = fresh((size_t)stride * MOST_INPUTS * sizeof *alone);
    float *many = fresh((size_t)stride * MOST_INPUTS * sizeof *many);
    for (int i = 0; i < set_count; i++) {
        for (uint32_t c = 0; c < MOST_INPUTS; c++)
            sets[i]->quantized(w, inputs + c, alone + c * stride, 0, ROWS);
        for (size_t n = 0; n < sizeof COUNTS / sizeof *COUNTS; n++) {
            bool good = true;
            sets[i]->quantized_many(w, inputs, COUNTS[n], many, stride, 0, ROWS);
            for (uint32_t c = 0; c < COUNTS[n]; c++)
                good = good && memcmp(many + c * stride, alone + c * stride, ROWS * sizeof *many) == 0;
            expect(good, "one by one", sets[i]->name, w, COUNTS[n]);
        }
    }
}

int main(void)
{
    static const char *const NAMES[] = {"avx2", "avx512vnni", "neon", "neondot", "wasm"};
    static const uint32_t COLUMNS[] = {650, 1024, 2600};
    static const uint32_t GROUPS[] = {0, UINT32_MAX, 32, 1000, 1040};
    for (int i = 0; i < 5; i++)
        if ((sets[set_count] = tlm_kernels_named(NAMES[i])) != NULL && sets[set_count]->quantized_many)
            set_count++;
    (void)pack_planes, (void)pack_values, (void)pack_positions; /* only other tests need them */
    for (int c = 0; c < 3; c++)
        for (int g = 0; g < 5; g++)
            for (unsigned bits = 2; bits <= 8; bits = bits == 4 ? 8 : bits + 1)
                for (unsigned mode = 0; mode < 3; mode++) {
                    if (GROUPS[g] > COLUMNS[c] && GROUPS[g] != UINT32_MAX)
                        continue;
                    make_inputs(COLUMNS[c]);
                    tlm_matrix w = matrix_of(COLUMNS[c], bits,
                                             GROUPS[g] == UINT32_MAX ? COLUMNS[c] : GROUPS[g], mode);
                    check(&w);
                    free_all();
                }
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0;
}
