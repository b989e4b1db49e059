/* The preview of an output layer: its bound holds for every word, and exact mode finds what all
 * exact scores would, bit for bit, with every set of kernels; fast mode finds nearly all of it.
 *
 * Usage: test_preview FOLDER, which tests/make_malformed.py wrote; without it, made-up matrices. */
#include <math.h>

#include "context.h"
#include "run_model.h"

enum { WORDS = 700, COLUMNS = 301, TEXTS = 20, TEN = 10, MOST = 50 };

static const char *const KERNELS[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};

static unsigned previews; /* contexts on files that have one */

/* What fast mode was asked for and did not find, over some vectors. */
static struct {
    unsigned words, missing, first;
} fast;

static float number(uint32_t *random)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(draw(random) % 2001) / 1000.0f - 1;
    return sum;
}

/* Rows with a direction that all share, some of them long, one of them 0. */
static float *made_up(uint32_t rows, uint32_t *random)
{
    float *values = take((size_t)rows * COLUMNS * sizeof *values), shared[COLUMNS];
    for (uint32_t k = 0; k < COLUMNS; k++)
        shared[k] = number(random);
    for (uint32_t r = 0; r < rows; r++) {
        const float by = number(random), size = r == 5 ? 0.0f : r % 50 == 0 ? 1.0f : 0.1f;
        for (uint32_t k = 0; k < COLUMNS; k++)
            values[r * COLUMNS + k] = size * (number(random) + by * shared[k]);
    }
    return values;
}

/* A dense matrix with 8-bit codes in the layout of the file. */
static tlm_matrix codes_of(const float *values, uint32_t rows)
{
    const uint32_t padded = (rows + 15) / 16 * 16, fours = (COLUMNS + 3) / 4;
    uint8_t *codes = take((size_t)padded * fours * 4);
    uint16_t *scales = take(padded * sizeof *scales);
    memset(codes, 0, (size_t)padded * fours * 4);
    for (uint32_t r = 0; r < padded; r++)
        scales[r] = 0x2400; /* 2^-6 */
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t k = 0; k < COLUMNS; k++) {
            const uint32_t start = r / 64 * 64, high = padded - start < 64 ? padded - start : 64;
            const float level = rintf(values[r * COLUMNS + k] * 64);
            codes[(size_t)start * fours * 4 + ((size_t)k / 4 * high + r - start) * 4 + k % 4] =
                (uint8_t)(int8_t)(level < -127 ? -127 : level > 127 ? 127 : level);
        }
    tlm_matrix w = {.form = TLM_QUANTIZED, .out = rows, .in = COLUMNS};
    w.u.quantized = (tlm_quantized){codes, scales, NULL, COLUMNS, 1, 8, false};
    return w;
}

static tlm_matrix dense_of(const float *values, uint32_t rows)
{
    tlm_matrix w = {.form = TLM_DENSE, .out = rows, .in = COLUMNS};
    w.u.dense.values = values;
    return w;
}

/* All words by their exact scores. */
static void exact_best(const float *scores, uint32_t k, tlm_choice *out)
{
    tlm_best best = {out, 0, k, NULL, 0};
    for (uint32_t word = 0; word < WORDS; word++)
        tlm_best_offer(&best, word, scores[word]);
    tlm_best_sort(&best);
}

static bool holds(const tlm_choice *words, uint32_t count, uint32_t token)
{
    for (uint32_t i = 0; i < count; i++)
        if (words[i].token == token)
            return true;
    return false;
}

/* Whatever fast mode finds has its exact score. What it misses is counted for TEN words: for many
   more, nearly every block of this small matrix is scored exactly. */
static void compare_fast(const tlm_choice *found, const tlm_choice *expected, uint32_t count,
                         const float *exact, const char *name)
{
    unsigned other = 0;
    for (uint32_t i = 0; i < count; i++) {
        other += found[i].log_probability != exact[found[i].token];
        fast.missing += count == TEN && !holds(found, count, expected[i].token);
    }
    fast.words += count == TEN ? TEN : 0;
    fast.first += found[0].token != expected[0].token;
    check(other == 0, "%s: %u scores of fast mode are not exact", name, other);
}

/* At least 99.5 % of the words, and always the best one. */
static void check_fast(const char *name, const char *kernels)
{
    check(fast.words > 0 && fast.missing * 200 <= fast.words && fast.first == 0,
          "%s, %s: fast mode misses %u of %u words, %u of them the best", name, kernels,
          fast.missing, fast.words, fast.first);
    memset(&fast, 0, sizeof fast);
}

/* Preview, bound and best words for one vector; returns the words scored exactly. */
static unsigned test_vector(tlm_context *c, const float *vector, const char *name, bool exactly)
{
    static const uint32_t WANTED[] = {1, TEN, MOST};
    const tlm_output *o = &c->model->output;
    const tlm_scratch saved = c->scratch;
    tlm_preview *p = &c->preview;
    float *exact = take((WORDS + 64) * sizeof *exact);
    unsigned scored = 0, broken = 0, loose = 0;
    tlm_apply(&c->engine, o->weight, &vector, 1, exact, 0, c->scratch);
    for (uint32_t i = 0; i < WORDS; i++)
        exact[i] += tlm_bias_at(&o->bias, i);
    for (unsigned i = 0; i < 3; i++) {
        tlm_choice found[MOST], expected[MOST];
        c->scratch = saved;
        tlm_preview_read(c, vector);
        for (uint32_t row = 0; i == 0 && row < p->rows; row++) {
            const uint32_t word = p->words[row];
            if (word == TLM_NO_ROW)
                continue;
            const float bound = p->most[row] - p->scores[row];
            broken += exactly && !(fabsf(exact[word] - p->scores[row]) <= bound);
            loose += !(bound < 40);
        }
        tlm_best best = {found, 0, WANTED[i], NULL, 0};
        tlm_preview_offer(c, &best);
        tlm_best_sort(&best);
        exact_best(exact, WANTED[i], expected);
        check(best.count == WANTED[i], "%s: %u of %u words", name, best.count, WANTED[i]);
        check(!exactly || memcmp(found, expected, best.count * sizeof *found) == 0,
              "%s, %s: other words or scores than without a preview", name, c->engine.kernels->name);
        if (!exactly)
            compare_fast(found, expected, best.count, exact, name);
        for (uint32_t b = 0; i == 0 && b < p->rows / 64; b++)
            scored += p->exact[b];
    }
    check(broken == 0, "%s, %s: the bound is broken %u times", name, c->engine.kernels->name, broken);
    check(loose == 0, "%s: the bound says nothing %u times", name, loose);
    check(tlm_preview_score(c, WORDS - 1) == exact[WORDS - 1], "%s: the score of a word", name);
    c->scratch = saved;
    free(exact);
    return scored;
}

/* Biases around `level`, vectors of about `size`. */
static void test_matrix(const tlm_matrix *w, const char *name, float level, float size)
{
    static tlm_model model;
    float bias[WORDS];
    uint32_t random = 3;
    for (uint32_t i = 0; i < WORDS; i++)
        bias[i] = level + number(&random);
    model.vocabulary_size = WORDS;
    model.config.output_size = COLUMNS;
    model.embedding = model.output.weight = w;
    model.output.bias = (tlm_bias){bias, false};
    for (size_t set = 0; set < sizeof KERNELS / sizeof *KERNELS; set++) {
        if (!tlm_can_run(KERNELS[set]))
            continue;
        for (uint32_t bits = 2; bits <= 4; bits++)
            for (int mode = TLM_PREVIEW_EXACT; mode <= TLM_PREVIEW_FAST; mode++) {
                const tlm_options options = {.kernels = KERNELS[set], .preview = bits,
                                             .preview_mode = (tlm_preview_mode)mode};
                tlm_context *c;
                unsigned scored = 0;
                check(tlm_context_open(&model, &options, &c) == TLM_OK, "%s: a context", name);
                check(tlm_context_preview(c) == bits, "%s: no preview of %u bits", name, bits);
                for (unsigned i = 0; i < TEXTS; i++) {
                    float *vector = take(COLUMNS * sizeof *vector);
                    for (uint32_t k = 0; k < COLUMNS; k++)
                        vector[k] = i == 0 ? 0 : size * number(&random);
                    scored += test_vector(c, vector, name, mode == TLM_PREVIEW_EXACT);
                    free(vector);
                }
                check(scored < TEXTS * c->preview.rows / 64 || bits < 4, "%s: scored all", name);
                tlm_context_close(c);
            }
        check_fast(name, KERNELS[set]);
    }
}

/* Every second word in another block, whose height is no multiple of 64. */
static tlm_matrix grouped(const tlm_matrix *blocks)
{
    uint8_t *groups = take(WORDS);
    uint32_t *place = take(WORDS * sizeof *place), heights[2] = {0};
    for (uint32_t i = 0; i < WORDS; i++) {
        groups[i] = (uint8_t)(i % 7 == 0);
        place[i] = heights[groups[i]]++;
    }
    check(heights[0] == blocks[0].out && heights[1] == blocks[1].out, "the heights of groups");
    tlm_matrix w = {.form = TLM_GROUPED_ROWS, .out = WORDS, .in = COLUMNS};
    w.u.grouped_rows = (tlm_grouped_rows){blocks, groups, place, 2};
    return w;
}

static void test_made_up(void)
{
    uint32_t random = 1;
    float *values = made_up(WORDS, &random);
    const tlm_matrix dense = dense_of(values, WORDS), codes = codes_of(values, WORDS);
    const tlm_matrix blocks[2] = {codes_of(values, 600), dense_of(values, 100)};
    tlm_matrix stacked = {.form = TLM_ROW_BLOCKS, .out = WORDS, .in = COLUMNS};
    stacked.u.row_blocks = (tlm_row_blocks){blocks, 2};
    const tlm_matrix mixed = grouped(blocks);
    test_matrix(&dense, "dense", 0, 0.3f);
    test_matrix(&codes, "8 bits", 0, 0.3f);
    test_matrix(&stacked, "blocks of rows", 0, 0.3f);
    test_matrix(&mixed, "groups of rows", 0, 0.3f);
    /* What is lost in adding the bias is most of the error. */
    test_matrix(&dense, "dense beside biases", 20, 3e-7f);
    test_matrix(&codes, "8 bits beside biases", 20, 1e-7f);
    free((void *)(uintptr_t)mixed.u.grouped_rows.groups);
    free((void *)(uintptr_t)mixed.u.grouped_rows.place);
    free((void *)(uintptr_t)blocks[0].u.quantized.codes);
    free((void *)(uintptr_t)blocks[0].u.quantized.scales);
    free((void *)(uintptr_t)codes.u.quantized.codes);
    free((void *)(uintptr_t)codes.u.quantized.scales);
    free(values);
}

/* What a context with a preview finds is what one without finds, but for one number off all. */
static void test_places(tlm_context *plain, tlm_context *context, const tlm_model *model,
                        const char *name)
{
    enum { K = 7 };
    const uint32_t words = size_of(model);
    void *state = take(tlm_state_size(model));
    tlm_state_init(model, state);
    for (uint32_t t = 0; t < 20; t++) {
        static const char *const PREFIXES[] = {"", "w", "w1", "th"};
        const char *prefix = PREFIXES[t % 4];
        tlm_choice a[K], b[K];
        uint32_t in_a = 0, in_b = 0;
        tlm_step(context, state, t % words);
        tlm_top(plain, state, prefix, strlen(prefix), &t, 1, K, a, &in_a);
        tlm_top(context, state, prefix, strlen(prefix), &t, 1, K, b, &in_b);
        check(in_a == in_b, "%s: %u words, %u without a preview", name, in_b, in_a);
        for (uint32_t i = 0; i < in_a && i < in_b; i++) {
            const float between = (a[i].log_probability - a[0].log_probability) -
                                  (b[i].log_probability - b[0].log_probability);
            check(fabsf(between) <= 1e-5f * (1 + fabsf(a[i].log_probability)),
                  "%s: place %u is off by %g", name, i, (double)between);
        }
    }
    free(state);
}

/* A file: a preview is made, left out or refused, and changes nothing that is asked for. */
static void test_file(const tlm_model *model, const char *name)
{
    tlm_context *plain = open_context(model, 1, 1, NULL), *context = NULL;
    tlm_description about;
    check(tlm_describe(model, &about) == TLM_OK, "%s: a description", name);
    for (uint32_t bits = 2; bits <= 4; bits++) {
        const tlm_options options = {.preview = bits};
        const tlm_status status = tlm_context_open(model, &options, &context);
        if (status != TLM_OK) {
            check(status == TLM_ERROR_ARGUMENT && context == NULL, "%s: status %d", name, (int)status);
            continue;
        }
        check(strcmp(about.output, "softmax") == 0, "%s: a preview of an adaptive output", name);
        previews += tlm_context_preview(context) == bits;
        test_places(plain, context, model, name);
        tlm_context_close(context);
    }
    tlm_context_close(plain);
}

static void test_refused(const char *folder)
{
    tlm_model *model = open_model(folder, "good-preview-dense");
    tlm_context *context;
    if (model == NULL)
        return;
    for (uint32_t bits = 0; bits < 10; bits++) {
        const tlm_options options = {.preview = bits, .preview_mode = (tlm_preview_mode)(bits == 9 ? 7 : 0)};
        const bool good = bits == 0 || (bits >= 2 && bits <= 4);
        const tlm_status status = tlm_context_open(model, &options, &context);
        check(status == (good ? TLM_OK : TLM_ERROR_ARGUMENT), "%u bits: status %d", bits, (int)status);
        check(tlm_context_preview(context) == (good ? bits : 0), "%u bits: another preview", bits);
        tlm_context_close(context);
    }
    check(tlm_context_preview(NULL) == 0, "no context");
    tlm_close(model);
}

int main(int count, char **arguments)
{
    test_made_up();
    if (count == 2 && for_each_model(arguments[1], test_file) > 0) {
        /* In 2, 3 and 4 bits of a dense output and a tied one, in 2 and 3 of 8 bits, in 2 of low
           rank: what saves bytes of the good-preview files. */
        check(previews >= 9, "%u previews are made", previews);
        test_refused(arguments[1]);
    }
    return end_of_test();
}
