/* Running models: what is computed together equals what is computed alone, bit for bit, and every
 * set of kernels computes what the portable ones do but for the order of its sums.
 *
 * Usage: test_run FOLDER, which tests/make_malformed.py wrote. */
#include <math.h>

#include "run_model.h"

/* Some recurrences magnify what rounding changes: sets of kernels are compared before that shows. */
enum { LENGTH = 70, MANY = 5, EARLY = 8 };
#define TOLERANCE 1e-5 /* of 1 and the greatest log-probability */

static const char *const KERNELS[] = {"portable", "avx2", "avx512vnni", "neon", "neondot", "wasm"};
static const char *kernels; /* those being tried */
static double worst;        /* difference to the portable kernels */

/* States of MANY texts of LENGTH tokens, one text after the other, alone. */
typedef struct alone {
    uint32_t tokens[MANY][LENGTH];
    unsigned char *states[MANY];
    float *scores; /* [MANY][LENGTH]: of each token given those before */
    float *early;  /* [MANY][size]: log-probabilities after EARLY tokens */
    float *after;  /* and at the end */
} alone;

static void read_alone(const tlm_model *model, uint32_t size, alone *a)
{
    tlm_context *context = open_context(model, 1, 1, kernels);
    uint32_t random = 7;
    a->scores = take(MANY * LENGTH * sizeof *a->scores);
    a->early = take(MANY * (size_t)size * sizeof *a->early);
    a->after = take(MANY * (size_t)size * sizeof *a->after);
    for (unsigned i = 0; i < MANY; i++) {
        float *after = a->after + (size_t)i * size;
        a->states[i] = take(tlm_state_size(model));
        check(tlm_state_init(model, a->states[i]) == TLM_OK, "a state");
        for (unsigned t = 0; t < LENGTH; t++) {
            const uint32_t token = a->tokens[i][t] = draw(&random) % size;
            tlm_log_probabilities(context, a->states[i], after);
            a->scores[i * LENGTH + t] = after[token];
            if (t == EARLY)
                memcpy(a->early + (size_t)i * size, after, size * sizeof *after);
            check(tlm_step(context, a->states[i], token) == TLM_OK, "a step");
        }
        check(tlm_log_probabilities(context, a->states[i], after) == TLM_OK, "probabilities");
        double sum = 0;
        for (uint32_t token = 0; token < size; token++)
            sum += exp2((double)after[token] * 1.4426950408889634);
        check(sum > 0.999 && sum < 1.001, "probabilities add up to %f", sum);
    }
    tlm_context_close(context);
}

static void test_together(const tlm_model *model, const char *name, uint32_t size, const alone *a)
{
    tlm_context *context = open_context(model, MANY, 1, kernels);
    const size_t bytes = tlm_state_size(model);
    void *states[MANY];
    const void *read[MANY];
    float *after = take(MANY * (size_t)size * sizeof *after);
    for (unsigned i = 0; i < MANY; i++) {
        read[i] = states[i] = take(bytes);
        tlm_state_init(model, states[i]);
    }
    for (unsigned t = 0; t < LENGTH; t++) {
        uint32_t tokens[MANY];
        for (unsigned i = 0; i < MANY; i++)
            tokens[i] = a->tokens[i][t];
        check(tlm_step_many(context, MANY, states, tokens) == TLM_OK, "%s: steps", name);
    }
    for (unsigned i = 0; i < MANY; i++)
        check(memcmp(states[i], a->states[i], bytes) == 0, "%s, %s: state %u of many differs",
              name, kernels, i);
    check(tlm_log_probabilities_many(context, MANY, read, after) == TLM_OK &&
              same(after, a->after, MANY * (size_t)size),
          "%s, %s: probabilities of many differ", name, kernels);
    for (unsigned i = 0; i < MANY; i++)
        free(states[i]);
    free(after);
    tlm_context_close(context);
}

static void test_sequences(const tlm_model *model, const char *name, const alone *a)
{
    static const uint32_t batches[] = {1, 3, 64};
    unsigned char *state = take(tlm_state_size(model));
    for (unsigned b = 0; b < 3; b++) {
        tlm_context *context = open_context(model, batches[b], 1, kernels);
        for (unsigned i = 0; i < MANY; i++) {
            float scores[LENGTH];
            double total, sum = 0;
            tlm_state_init(model, state);
            check(tlm_score_sequence(context, state, a->tokens[i], LENGTH, scores, &total) ==
                          TLM_OK && same(scores, a->scores + i * LENGTH, LENGTH),
                  "%s, %s: scores by %u differ", name, kernels, batches[b]);
            for (unsigned t = 0; t < LENGTH; t++)
                sum += (double)scores[t];
            check(sum == total, "%s: %f is not the sum %f", name, total, sum);
            check(memcmp(state, a->states[i], tlm_state_size(model)) == 0,
                  "%s: the state after a sequence differs", name);
        }
        check(tlm_score_sequence(context, state, NULL, 0, NULL, NULL) == TLM_OK, "no tokens");
        tlm_context_close(context);
    }
    free(state);
}

/* Whether a token may be offered. */
static bool is_wanted(const tlm_model *model, uint32_t token, const char *prefix,
                      const uint32_t *exclude, uint32_t excluded)
{
    char text[TLM_MAX_TOKEN_BYTES];
    uint32_t size;
    for (uint32_t i = 0; i < excluded; i++)
        if (exclude[i] == token)
            return false;
    tlm_token_text(model, token, text, &size);
    return size >= strlen(prefix) && memcmp(text, prefix, strlen(prefix)) == 0;
}

static void test_top(const tlm_model *model, const char *name, uint32_t size, const alone *a)
{
    static const char *const prefixes[] = {"", "w", "w1", "<", "a", "\xc3", "nothing"};
    static const uint32_t exclude[] = {3, 0, 5, 3};
    tlm_context *context = open_context(model, 1, 1, kernels);
    tlm_choice *top = take((size + 3) * sizeof *top);
    bool *taken = take(size * sizeof *taken); /* or not wanted */
    for (unsigned trial = 0; trial < 7 * 2 * 4; trial++) {
        const char *prefix = prefixes[trial % 7];
        const uint32_t excluded = trial / 7 % 2 ? 4 : 0;
        const uint32_t ks[] = {1, 4, size, size + 3}, k = ks[trial / 14];
        uint32_t found = 0, wanted = 0;
        check(tlm_top(context, a->states[0], prefix, strlen(prefix), exclude, excluded, k, top,
                      &found) == TLM_OK, "%s: top", name);
        for (uint32_t token = 0; token < size; token++)
            taken[token] = !is_wanted(model, token, prefix, exclude, excluded);
        for (; wanted < k; wanted++) { /* the best that is left, the slow way */
            uint32_t best = TLM_NO_TOKEN;
            for (uint32_t token = 0; token < size; token++)
                if (!taken[token] && (best == TLM_NO_TOKEN || a->after[token] > a->after[best]))
                    best = token;
            if (best == TLM_NO_TOKEN)
                break;
            taken[best] = true;
            check(wanted < found && top[wanted].token == best &&
                      same(&top[wanted].log_probability, &a->after[best], 1),
                  "%s, %s: place %u of %u with prefix \"%s\"", name, kernels, wanted, k, prefix);
        }
        check(found == wanted, "%s: %u found, %u are there", name, found, wanted);
    }
    free(top);
    free(taken);
    tlm_context_close(context);
}

static void test_states(const tlm_model *model, const char *name, uint32_t size, const alone *a)
{
    tlm_context *context = open_context(model, 2, 1, kernels);
    const size_t bytes = tlm_state_size(model), saved = tlm_state_saved_size(model);
    unsigned char *copy = take(bytes + 4), *stored = take(saved), *other = take(bytes);
    float score;
    check(tlm_state_save(model, a->states[1], stored) == TLM_OK &&
              tlm_state_restore(model, stored, saved, copy) == TLM_OK &&
              memcmp(copy, a->states[1], bytes) == 0, "%s: a state comes back", name);
    memcpy(other, copy, bytes);
    tlm_step(context, copy, 1);
    check(memcmp(other, a->states[1], bytes) == 0, "%s: a copy is one", name);
    check(tlm_state_restore(model, stored, saved - 1, copy) == TLM_ERROR_DAMAGED &&
              tlm_state_restore(model, stored, 5, copy) == TLM_ERROR_DAMAGED &&
              tlm_state_restore(model, stored, 0, copy) == TLM_ERROR_DAMAGED, "a cut state");
    stored[9] ^= 1;
    check(tlm_state_restore(model, stored, saved, copy) == TLM_ERROR_MODEL, "of another model");
    stored[0] ^= 1;
    check(tlm_state_restore(model, stored, saved, copy) == TLM_ERROR_DAMAGED, "no state");

    const uint32_t outside[] = {0, size, UINT32_MAX};
    void *states[] = {other, copy, copy};
    memcpy(copy, other, bytes);
    check(tlm_step(context, copy, size) == TLM_ERROR_ARGUMENT &&
              tlm_step_many(context, 2, states, outside) == TLM_ERROR_ARGUMENT &&
              tlm_step_many(context, 3, states, outside) == TLM_ERROR_ARGUMENT &&
              tlm_score_sequence(context, copy, outside, 3, NULL, NULL) == TLM_ERROR_ARGUMENT &&
              tlm_score_tokens(context, copy, outside, 2, &score) == TLM_ERROR_ARGUMENT,
          "%s: tokens outside are refused", name);
    check(memcmp(copy, a->states[1], bytes) == 0 && memcmp(other, a->states[1], bytes) == 0,
          "%s: a refused step changes nothing", name);
    check(tlm_step(context, copy + 1, 0) == TLM_ERROR_ARGUMENT &&
              tlm_step(context, NULL, 0) == TLM_ERROR_ARGUMENT &&
              tlm_log_probabilities(context, copy + 2, &score) == TLM_ERROR_ARGUMENT,
          "%s: states that cannot be", name);
    const uint32_t tokens[] = {0, 2, 0};
    float scores[3];
    check(tlm_score_tokens(context, a->states[0], tokens, 3, scores) == TLM_OK &&
              same(scores, a->after, 1) && same(scores + 1, a->after + 2, 1), "scores of tokens");
    free(copy);
    free(stored);
    free(other);
    tlm_context_close(context);
}

/* The portable kernels, which are plain C, say what the others must compute. */
static void compare(const char *name, const float *values, const float *expected, size_t count)
{
    double most = 0, off = 0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)expected[i]));
    bool good = isfinite(most);
    for (size_t i = 0; i < count; i++) {
        const double difference = fabs((double)values[i] - (double)expected[i]) / (1 + most);
        good = good && difference <= TOLERANCE; /* NaN is not */
        off = fmax(off, difference);
    }
    worst = fmax(worst, off);
    check(good, "%s, %s: log-probabilities are off by %g", name, kernels, off);
}

static void free_alone(alone *a)
{
    for (unsigned i = 0; i < MANY; i++)
        free(a->states[i]);
    free(a->scores);
    free(a->early);
    free(a->after);
}

static void test_model(const tlm_model *model, const char *name)
{
    const uint32_t size = size_of(model);
    alone portable = {.scores = NULL};
    for (unsigned k = 0; k < sizeof KERNELS / sizeof *KERNELS; k++) {
        alone a;
        kernels = KERNELS[k];
        if (!tlm_can_run(kernels))
            continue;
        read_alone(model, size, &a);
        if (k == 0)
            portable = a;
        else
            compare(name, a.early, portable.early, MANY * (size_t)size);
        test_together(model, name, size, &a);
        test_sequences(model, name, &a);
        if (k == 0) {
            test_top(model, name, size, &a);
            test_states(model, name, size, &a);
        }
        if (k > 0)
            free_alone(&a);
    }
    free_alone(&portable);
}

static void test_arguments(void)
{
    tlm_context *context = (tlm_context *)&failures;
    const tlm_options many = {.batch = 4097};
    check(tlm_context_open(NULL, NULL, &context) == TLM_ERROR_ARGUMENT && context == NULL,
          "a context of no model");
    check(tlm_context_open(NULL, &many, NULL) == TLM_ERROR_ARGUMENT, "no place for a context");
    check(!tlm_can_run("abacus") && !tlm_can_run(NULL), "kernels that are none");
    check(tlm_state_size(NULL) == 0 && tlm_start_token(NULL) == TLM_NO_TOKEN, "no model");
    tlm_context_close(NULL);
}

int main(int argc, char **argv)
{
    test_arguments();
    if (argc > 1)
        for_each_model(argv[1], test_model);
    else
        printf("SKIPPED: no folder of models is given\n");
    printf("off the portable kernels by at most %.2g\n", worst);
    return end_of_test();
}
