/* The functions of cells and of log-probabilities against doubles, for every set of kernels: over
   wide ranges, and for every small number of values, so that each rest of a register is tried. */
#include "test_kernels_pack.c"

enum { MOST = 100 };

static int failures, checks;

static void expect(bool good, const char *what, const tlm_kernels *set, uint32_t n)
{
    checks++;
    if (!good && ++failures <= 20)
        printf("FAILED %s, %s, %u values\n", what, set->name, n);
}

/* NaN, if there is one. */
static double larger(double a, double b)
{
    return isnan(a) || b <= a ? a : b;
}

static double sigmoid_of(double x)
{
    return 1 / (1 + exp(-x));
}

/* Numbers whose sums of a few are exact in floats. */
static float *draw_exact(uint32_t n)
{
    float *x = fresh(n * sizeof *x); /* of exact size, for the sanitizer */
    for (uint32_t k = 0; k < n; k++)
        x[k] = (float)((int)draw(4001) - 2000) / 512.0f;
    return x;
}

/* A sum of one rounding is the same everywhere. */
static float sum_of(float a, float b)
{
    return (float)((double)a + (double)b);
}

static void test_ranges(const tlm_kernels *set)
{
    enum { N = 40001 };
    static float in[N], out[N];
    double worst_sigmoid = 0, worst_tanh = 0, worst_exp = 0;
    for (int scale = 0; scale < 3; scale++) {
        for (int k = 0; k < N; k++)
            in[k] = (float)(k - N / 2) * (scale == 0 ? 4e-3f : scale == 1 ? 1e-3f : 3e-5f);
        memcpy(out, in, sizeof in);
        set->sigmoid(out, N);
        for (int k = 0; k < N; k++)
            worst_sigmoid =
                larger(worst_sigmoid, fabs((double)out[k] * (1 + exp(-(double)in[k])) - 1));
        memcpy(out, in, sizeof in);
        set->tanh(out, N);
        for (int k = 0; k < N; k++)
            if (in[k] != 0)
                worst_tanh = larger(worst_tanh, fabs((double)out[k] / tanh((double)in[k]) - 1));
        for (int k = 0; k < N; k++)
            worst_exp = larger(
                worst_exp, fabs((double)set->sum_exp(in + k, 1, 0) / exp((double)in[k]) - 1));
    }
    printf("%s: relative errors sigmoid %.2g, tanh %.2g, exp %.2g\n", set->name, worst_sigmoid,
           worst_tanh, worst_exp);
    expect(worst_sigmoid < 1e-6 && worst_tanh < 1e-6 && worst_exp < 1e-6, "functions", set, N);
}

static void test_round_input(const tlm_kernels *set, const tlm_kernels *portable, uint32_t n)
{
    float *x = fresh(n * sizeof *x), scale, same;
    int8_t *rounded = fresh(up(n, 64)), *other = fresh(up(n, 64));
    for (uint32_t k = 0; k < n; k++)
        x[k] = 5 * draw_float();
    portable->round_input(x, n, rounded, &scale);
    set->round_input(x, n, other, &same);
    expect(scale == same && memcmp(rounded, other, up(n, 64)) == 0, "round_input", set, n);
    bool good = true;
    for (uint32_t k = 0; k < up(n, 64); k++)
        good = good && other[k] == (k < n ? (int8_t)rint((double)(x[k] / scale)) : 0);
    expect(good, "rounding", set, n);
}

static void test_sums(const tlm_kernels *set, uint32_t n)
{
    float *x = fresh(n * sizeof *x), *y = fresh(n * sizeof *y), most = -INFINITY;
    double sum = 0;
    for (uint32_t k = 0; k < n; k++) {
        x[k] = y[k] = 5 * draw_float();
        most = fmaxf(most, x[k]);
        sum += exp((double)(x[k] - 3));
    }
    expect(set->max(x, n) == most, "max", set, n);
    expect(fabs((double)set->sum_exp(x, n, 3) - sum) <= 1e-6 * sum, "sum_exp", set, n);
    bool good = true;
    set->subtract(y, n, 0.7f);
    for (uint32_t k = 0; k < n; k++)
        good = good && y[k] == sum_of(x[k], -0.7f);
    expect(good, "subtract", set, n);
}

static void test_add_max(const tlm_kernels *set, uint32_t n)
{
    float *from = fresh(n * sizeof *from), *bias = fresh(n * sizeof *bias);
    float *to = fresh(n * sizeof *to), most = -INFINITY;
    bool good = true;
    for (uint32_t k = 0; k < n; k++) {
        from[k] = 5 * draw_float() - 9; /* all below 0, which no rest may bring in */
        bias[k] = draw_float();
        most = fmaxf(most, sum_of(from[k], bias[k]));
    }
    expect(set->add_max(to, from, bias, n) == most, "add_max", set, n);
    for (uint32_t k = 0; k < n; k++)
        good = good && to[k] == sum_of(from[k], bias[k]);
    expect(good, "sums of add_max", set, n);
    expect(set->add_max(from, from, bias, n) == most && memcmp(from, to, n * sizeof *to) == 0,
           "add_max in place", set, n);
}

static void test_gates(const tlm_kernels *set, uint32_t n)
{
    float *x = draw_exact(n), *small = fresh(n * sizeof *small), *large = fresh(n * sizeof *large);
    double off = 0;
    for (uint32_t k = 0; k < n; k++)
        small[k] = large[k] = x[k];
    set->sigmoid(small, n);
    set->tanh(large, n);
    for (uint32_t k = 0; k < n; k++) {
        const double t = tanh((double)x[k]);
        off = larger(off, fabs((double)small[k] / sigmoid_of((double)x[k]) - 1));
        off = larger(off, t == 0 ? fabs((double)large[k]) : fabs((double)large[k] / t - 1));
    }
    expect(off < 1e-6, "sigmoid and tanh", set, n);
}

static void test_lstm(const tlm_kernels *set, uint32_t n)
{
    const float *gates = draw_exact(4 * n), *more = draw_exact(4 * n), *bias = draw_exact(4 * n);
    const float *before = draw_exact(n);
    float *cell = fresh(n * sizeof *cell), *hidden = fresh(n * sizeof *hidden);
    double off = 0;
    memcpy(cell, before, n * sizeof *cell);
    set->lstm(gates, more, bias, n, cell, hidden);
    for (uint32_t k = 0; k < n; k++) {
        double gate[4];
        for (uint32_t g = 0; g < 4; g++)
            gate[g] = (double)gates[g * n + k] + (double)more[g * n + k] + (double)bias[g * n + k];
        const double now = sigmoid_of(gate[1]) * (double)before[k] + sigmoid_of(gate[0]) * tanh(gate[2]);
        off = larger(off, fabs((double)cell[k] - now) / (1 + fabs((double)before[k])));
        off = larger(off, fabs((double)hidden[k] - sigmoid_of(gate[3]) * tanh(now)));
    }
    expect(off < 1e-6, "lstm", set, n);
}

int main(void)
{
    static const char *const NAMES[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
    (void)pack_integers, (void)pack_planes, (void)pack_values; /* only other tests need them */
    (void)pack_positions, (void)pack_halves;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        const tlm_kernels *set = tlm_kernels_named(NAMES[i]);
        if (set == NULL)
            continue;
        test_ranges(set);
        for (uint32_t n = 0; n < MOST; n++) {
            test_round_input(set, tlm_kernels_named("portable"), n);
            test_sums(set, n);
            test_add_max(set, n);
            test_gates(set, n);
            test_lstm(set, n);
            free_all();
        }
    }
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0;
}
