/* Every kernel against sums in double over the unpacked numbers, on awkward shapes. Where all
   scales are 1 the sums are integers, and every instruction set must give the same ones. */
#include "test_kernels_pack.c"

static const uint32_t ROWS[] = {1, 15, 16, 17, 63, 64, 65, 130};
static const uint32_t COLUMNS[] = {1, 3, 4, 31, 32, 33, 200, 650};
enum { SHAPES = 8, MOST_ROWS = 144, MOST_COLUMNS = 704 };

static int failures, checks;
static const tlm_kernels *sets[6];
static int set_count;

static double worst;
static double weights[MOST_ROWS * MOST_COLUMNS]; /* the matrix */
static float x[MOST_COLUMNS];
static int8_t q[MOST_COLUMNS];
static tlm_input input;

static void new_input(uint32_t columns, bool unit)
{
    float *exact = fresh(columns * sizeof *exact); /* of exact size, for the sanitizer */
    int8_t *rounded = fresh(up(columns, 64));
    for (uint32_t k = 0; k < columns; k++)
        exact[k] = x[k] = draw_float();
    sets[0]->round_input(exact, columns, rounded, &input.scale);
    memcpy(q, rounded, up(columns, 64));
    if (unit)
        input.scale = 1;
    input.x = exact;
    input.q = rounded;
    input.size = columns;
}

static void expect(bool good, const char *what, const char *set, uint32_t rows, uint32_t columns,
                   unsigned detail)
{
    checks++;
    if (!good && ++failures <= 20)
        printf("FAILED %s, %s, %u x %u, case %u\n", what, set, rows, columns, detail);
}

/* `integer`: the product reads q. `exact`: sums are integers. */
static void check(const char *what, size_t member, const tlm_matrix *w, bool integer, bool exact,
                  unsigned detail)
{
    for (int i = 0; i < set_count; i++) {
        tlm_product *product;
        memcpy(&product, (const char *)sets[i] + member, sizeof product);
        float *y = fresh(up(w->out, 16) * sizeof *y);
        for (uint32_t begin = 0; begin < w->out; begin += 64)
            product(w, &input, y, begin, begin + 64 < w->out ? begin + 64 : w->out);
        float *whole = fresh(up(w->out, 16) * sizeof *whole);
        product(w, &input, whole, 0, w->out);
        bool good = memcmp(y, whole, w->out * sizeof *y) == 0;
        for (uint32_t r = 0; r < w->out; r++) {
            double sum = 0, size = 1e-30;
            for (uint32_t k = 0; k < w->in; k++) {
                const double term = weights[r * w->in + k] *
                                    (integer ? (double)q[k] * (double)input.scale : (double)x[k]);
                sum += term;
                size += fabs(term);
            }
            const double error = fabs((double)y[r] - sum) / size;
            if (error > worst)
                worst = error;
            good = good && (exact ? (double)y[r] == sum : error < 1e-6);
        }
        expect(good, what, sets[i]->name, w->out, w->in, detail);
    }
}

/* Products of many inputs are exactly those of each. */
static void check_many(const char *what, size_t member, size_t single, const tlm_matrix *w,
                       unsigned detail)
{
    enum { MOST = 17 };
    const uint32_t stride = up(w->out, 16) + 16 * draw(2), count = 1 + draw(MOST);
    tlm_input inputs[MOST];
    for (uint32_t i = 0; i < count; i++) {
        float *some = fresh(w->in * sizeof *some);
        int8_t *rounded = fresh(up(w->in, 64));
        for (uint32_t k = 0; k < w->in; k++)
            some[k] = draw_float();
        inputs[i] = (tlm_input){some, rounded, 0, w->in};
        sets[0]->round_input(some, w->in, rounded, &inputs[i].scale);
    }
    float *y = fresh((size_t)stride * count * sizeof *y);
    float *one = fresh(up(w->out, 16) * sizeof *one);
    for (int i = 0; i < set_count; i++) {
        tlm_many *many;
        tlm_product *product;
        memcpy(&many, (const char *)sets[i] + member, sizeof many);
        memcpy(&product, (const char *)sets[i] + single, sizeof product);
        if (many == NULL)
            continue;
        many(w, inputs, count, y, stride, 0, w->out);
        bool good = true;
        for (uint32_t c = 0; c < count; c++) {
            product(w, inputs + c, one, 0, w->out);
            good = good && memcmp(one, y + (size_t)c * stride, w->out * sizeof *y) == 0;
        }
        expect(good, what, sets[i]->name, w->out, w->in, detail);
    }
}
#define CHECK_MANY(kernel, w, detail)                                                            \
    check_many(#kernel "_many", offsetof(tlm_kernels, kernel##_many), offsetof(tlm_kernels, kernel), \
               w, detail)
#define CHECK(kernel, ...) check(#kernel, offsetof(tlm_kernels, kernel), __VA_ARGS__)

static int codes[MOST_ROWS * MOST_COLUMNS];
static float scales[MOST_ROWS * MOST_COLUMNS];

static void test_quantized(uint32_t rows, uint32_t columns)
{
    static const uint32_t GROUPS[] = {0, UINT32_MAX, 8, 16, 24, 32, 64, 128};
    for (unsigned bits = 2; bits <= 8; bits = bits == 4 ? 8 : bits + 1)
        for (unsigned g = 0; g < 8; g++)
            for (unsigned mode = 0; mode < 3; mode++) {
                const bool unit = draw(2), mid_rise = mode == 1, has_zeros = mode == 2;
                if (mid_rise && bits == 8)
                    continue;
                const uint32_t size = GROUPS[g] && GROUPS[g] < columns ? GROUPS[g] : columns;
                const uint32_t groups = GROUPS[g] ? (columns + size - 1) / size : 1;
                const uint32_t lists = GROUPS[g] ? rows : 1;
                const int least = -(1 << (bits - 1)) + (bits == 8);
                new_input(columns, unit);
                tlm_matrix w = {.form = TLM_QUANTIZED, .out = rows, .in = columns};
                tlm_quantized *m = &w.u.quantized;
                m->bits = (uint8_t)bits;
                m->group = GROUPS[g] == UINT32_MAX ? columns : GROUPS[g];
                m->groups = groups;
                m->mid_rise = mid_rise;
                m->scales = pack_halves(scales, lists, groups, unit);
                int8_t *zeros = has_zeros ? fresh(up(lists, 16) * groups) : NULL;
                m->zeros = zeros;
                for (uint32_t r = 0; r < rows; r++)
                    for (uint32_t c = 0; c < columns; c++) {
                        const uint32_t at = r * columns + c, list = lists == 1 ? 0 : r;
                        codes[at] = least + (int)draw((1u << bits) - (bits == 8));
                        int level = mid_rise ? 2 * codes[at] + 1 : codes[at];
                        if (has_zeros)
                            level -= zeros[scale_place(lists, groups, list, c / size)];
                        weights[at] = level * (double)scales[list * groups + c / size];
                    }
                m->codes = pack_integers(codes, rows, columns, bits);
                CHECK(quantized, &w, true, unit, bits * 100 + g * 10 + mode);
                CHECK_MANY(quantized, &w, bits * 100 + g * 10 + mode);
                free_all();
            }
}

static void test_dense(uint32_t rows, uint32_t columns)
{
    for (unsigned half = 0; half < 2; half++) {
        new_input(columns, false);
        tlm_matrix w = {.form = TLM_DENSE, .out = rows, .in = columns};
        tlm_stored_values values = pack_values(half ? 16 : 32, rows * columns, weights);
        w.u.dense.values = values.values;
        w.u.dense.half = half;
        CHECK(dense, &w, false, false, half);
        CHECK_MANY(dense, &w, half);
        free_all();
    }
}

static void test_planes(uint32_t rows, uint32_t columns)
{
    for (unsigned bits = 1; bits <= 8; bits++)
        for (unsigned per_row = 0; per_row < 2; per_row++) {
            const uint32_t count = 1u << bits, lists = per_row ? rows : 1;
            if (per_row && (bits < 2 || bits > 4))
                continue;
            new_input(columns, false);
            tlm_matrix w = {.form = TLM_CODEBOOK, .out = rows, .in = columns};
            w.u.codebook.values = pack_halves(scales, lists, count, false);
            /* One list lies as it is, which is how one row of a block of 1 would lie. */
            if (!per_row) {
                uint16_t *values = fresh(count * 2);
                for (uint32_t c = 0; c < count; c++)
                    values[c] = draw_half(false, &scales[c]);
                w.u.codebook.values = values;
            }
            for (uint32_t i = 0; i < rows * columns; i++) {
                codes[i] = (int)draw(count);
                weights[i] = (double)scales[(per_row ? i / columns * count : 0) + (uint32_t)codes[i]];
            }
            w.u.codebook.codes = pack_planes(codes, rows, columns, bits);
            w.u.codebook.bits = (uint8_t)bits;
            w.u.codebook.per_row = per_row;
            CHECK(codebook, &w, false, false, bits * 10 + per_row);
            free_all();
        }
    static const uint32_t GROUPS[] = {UINT32_MAX, 16, 24, 32, 128};
    for (unsigned bits = 1; bits <= 4; bits++)
        for (unsigned g = 0; g < 5; g++) {
            const bool unit = draw(2);
            const uint32_t size = GROUPS[g] < columns ? GROUPS[g] : columns;
            const uint32_t groups = (columns + size - 1) / size;
            new_input(columns, unit);
            tlm_matrix w = {.form = TLM_BINARY_CODES, .out = rows, .in = columns};
            w.u.binary_codes.scales = pack_halves(scales, rows, groups * bits, unit);
            for (uint32_t i = 0; i < rows * columns; i++) {
                codes[i] = (int)draw(1u << bits);
                weights[i] = 0;
                for (unsigned p = 0; p < bits; p++)
                    weights[i] += (codes[i] >> p & 1 ? 1 : -1) *
                                  (double)scales[(i / columns * groups + i % columns / size) * bits + p];
            }
            w.u.binary_codes.codes = pack_planes(codes, rows, columns, bits);
            w.u.binary_codes.bits = (uint8_t)bits;
            w.u.binary_codes.group = GROUPS[g] == UINT32_MAX ? columns : GROUPS[g];
            w.u.binary_codes.groups = groups;
            CHECK(binary_codes, &w, true, unit, bits * 10 + g);
            free_all();
        }
}

static void test_product_codes(uint32_t rows, uint32_t columns)
{
    static const uint32_t SIZES[] = {1, 2, 3, 4, 6, 8, 12, 16, 64};
    static double numbers[MOST_COLUMNS * 256 * 2];
    for (unsigned s = 0; s < 9; s++)
        for (uint32_t count = 16; count <= 256; count += 240) {
            const bool shared = draw(2), has_norms = draw(2);
            const uint32_t size = SIZES[s], blocks = (columns + size - 1) / size;
            new_input(columns, false);
            tlm_matrix w = {.form = TLM_PRODUCT_CODES, .out = rows, .in = columns};
            tlm_product_codes *m = &w.u.product_codes;
            m->size = size, m->blocks = blocks, m->count = count, m->shared = shared;
            m->centroids =
                pack_values(16, (size_t)(shared ? 1 : blocks) * count * size, numbers).values;
            m->norms = pack_halves(scales, rows, 1, false);
            if (!has_norms)
                m->norms = NULL;
            uint8_t *packed = fresh((size_t)up(rows, 16) * blocks / (count == 16 ? 2 : 1));
            for (uint32_t r = 0; r < rows; r++)
                for (uint32_t b = 0; b < blocks; b++) {
                    const uint32_t code = draw(count);
                    if (count == 16)
                        put_nibble(packed, rows, blocks, r, b, code);
                    else
                        packed[scale_place(rows, blocks, r, b)] = (uint8_t)code;
                    for (uint32_t c = 0; c < size && b * size + c < columns; c++)
                        weights[r * columns + b * size + c] =
                            numbers[((shared ? 0 : b) * count + code) * size + c] *
                            (has_norms ? (double)scales[r] : 1);
                }
            m->codes = packed;
            CHECK(product_codes, &w, false, false, size * 1000 + count);
            free_all();
        }
}

static void test_sparse(uint32_t rows, uint32_t columns)
{
    static const unsigned KINDS[] = {32, 16, 8, 4}, DENSITY[] = {0, 3, 20, 60, 100};
    static double numbers[192 * MOST_COLUMNS];
    static bool stored[MOST_ROWS * MOST_COLUMNS];
    for (unsigned k = 0; k < 4; k++)
        for (unsigned d = 0; d < 5; d++)
            for (int coding = TLM_BITMAP; coding <= TLM_GAPS8; coding++) {
                const bool unit = draw(2), integer = KINDS[k] <= 8;
                new_input(columns, unit);
                uint32_t count = 0;
                for (uint32_t i = 0; i < rows * columns; i++)
                    count += stored[i] = draw(100) < DENSITY[d];
                uint8_t *places = fresh((size_t)MOST_ROWS * columns + 64);
                uint32_t *starts = fresh(64 * 4);
                const size_t bytes = pack_positions(stored, rows, columns, (tlm_positions)coding,
                                                    places, starts);
                uint8_t *exact = fresh(bytes); /* the sanitizer sees any step beyond */
                memcpy(exact, places, bytes);
                tlm_matrix w = {.form = integer ? TLM_SPARSE_QUANTIZED : TLM_SPARSE,
                                .out = rows, .in = columns};
                w.u.sparse.stored = pack_values(KINDS[k], count, numbers);
                w.u.sparse.stored.scales = pack_halves(scales, rows, 1, unit);
                w.u.sparse.positions = exact;
                w.u.sparse.starts = starts;
                w.u.sparse.count = count;
                w.u.sparse.row_blocks = (rows + 63) / 64;
                w.u.sparse.coding = (tlm_positions)coding;
                uint32_t next = 0;
                for (uint32_t first = 0; first < rows; first += 64)
                    for (uint32_t c = 0; c < columns; c++)
                        for (uint32_t r = first; r < first + 64 && r < rows; r++)
                            weights[r * columns + c] =
                                stored[r * columns + c]
                                    ? numbers[next++] * (integer ? (double)scales[r] : 1)
                                    : 0;
                CHECK(sparse, &w, integer, integer && unit, k * 100 + d * 10 + (unsigned)coding);
                free_all();
            }
    for (unsigned k = 0; k < 4; k++)
        for (unsigned high = 1; high <= 64; high *= 2)
            for (unsigned wide = 1; wide <= 64; wide *= 4) {
                const bool unit = draw(2), integer = KINDS[k] <= 8;
                const uint32_t down = (rows + high - 1) / high, across = (columns + wide - 1) / wide;
                const uint32_t together = wide < 4 ? wide : 4, grid = down * across;
                new_input(columns, unit);
                uint8_t *bitmap = fresh(grid / 512 * 64 + 64);
                memset(bitmap, 0, grid / 512 * 64 + 64);
                size_t kept = 0;
                for (uint32_t b = 0; b < grid; b++)
                    if (draw(100) < 30)
                        bitmap[b / 8] |= (uint8_t)(1u << b % 8), kept++;
                tlm_matrix w = {.form = integer ? TLM_BLOCK_SPARSE_QUANTIZED : TLM_BLOCK_SPARSE,
                                .out = rows, .in = columns};
                tlm_block_sparse *m = &w.u.block_sparse;
                m->stored = pack_values(KINDS[k], kept * high * wide, numbers);
                m->stored.scales = pack_halves(scales, rows, 1, unit);
                m->bitmap = bitmap, m->kept = kept, m->high = high, m->wide = wide;
                m->grid_rows = down, m->grid_columns = across;
                size_t number = 0;
                for (uint32_t b = 0; b < grid; b++) {
                    const bool here = bitmap[b / 8] >> b % 8 & 1;
                    for (uint32_t i = 0; i < high * wide; i++) {
                        const uint32_t r = b / across * high + i / wide, c = b % across * wide + i % wide;
                        const uint32_t in = (i % wide / together * high + i / wide) * together + i % together;
                        if (r < rows && c < columns)
                            weights[r * columns + c] =
                                here ? numbers[number + in] * (integer ? (double)scales[r] : 1) : 0;
                    }
                    number += here ? high * wide : 0;
                }
                CHECK(block_sparse, &w, integer, integer && unit, k * 10000 + high * 100 + wide);
                free_all();
            }
}

int main(void)
{
    static const char *const NAMES[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
    for (int i = 0; i < 6; i++)
        if ((sets[set_count] = tlm_kernels_named(NAMES[i])) != NULL)
            set_count++;
    expect(tlm_kernels_named("none") == NULL && tlm_kernels_best() != NULL, "names", "", 0, 0, 0);
    printf("best: %s\n", tlm_kernels_best()->name);
    for (int r = 0; r < SHAPES; r++)
        for (int c = 0; c < SHAPES; c++) {
            test_quantized(ROWS[r], COLUMNS[c]);
            test_dense(ROWS[r], COLUMNS[c]);
            test_planes(ROWS[r], COLUMNS[c]);
            test_product_codes(ROWS[r], COLUMNS[c]);
            test_sparse(ROWS[r], COLUMNS[c]);
        }
    printf("%d checks, %d failed; worst error %.2g of the sum of sizes\n", checks, failures, worst);
    return failures != 0;
}
