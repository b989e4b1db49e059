/* Memory: calls on a context take none, everything is given back, and states stay finite.
 *
 * Usage: test_memory FOLDER [STEPS]. It is linked with -Wl,--wrap=malloc and so on, so that the
 * library's calls come here first. */
#include <math.h>

#include "run_model.h"

#define STEPS 200000ul

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

static unsigned previews; /* contexts that have one */
static long calls, blocks; /* calls that take or free; blocks not yet freed */
static long refuse_after = -1; /* calls that take until one finds no memory; -1: all find it */

static bool refused(void)
{
    return refuse_after >= 0 && refuse_after-- == 0;
}

void *__wrap_malloc(size_t size)
{
    void *block = refused() ? NULL : __real_malloc(size);
    calls++;
    blocks += block != NULL;
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = refused() ? NULL : __real_calloc(count, size);
    calls++;
    blocks += block != NULL;
    return block;
}

void *__wrap_realloc(void *block, size_t size)
{
    void *other = refused() ? NULL : __real_realloc(block, size);
    calls++;
    blocks += block == NULL && other != NULL;
    return other;
}

void __wrap_free(void *block)
{
    calls++;
    blocks -= block != NULL;
    __real_free(block);
}

static void test_calls(const tlm_model *model, const char *name)
{
    const uint32_t size = size_of(model);
    unsigned char *state = take(tlm_state_size(model)), *saved = take(tlm_state_saved_size(model));
    float *scores = take((size + 8) * sizeof *scores);
#if defined(__wasm__) || defined(_WIN32)
    const uint32_t threads = 1;
#else
    const uint32_t threads = 2;
#endif
    tlm_context *context = open_context(model, 4, threads, NULL);
    const uint32_t tokens[] = {0, size - 1, size / 2, 0, 1, 2, 0};
    uint32_t found[8];
    size_t count;
    tlm_choice top[3];
    const long before = calls;
    tlm_state_init(model, state);
    tlm_step(context, state, 0);
    tlm_log_probabilities(context, state, scores);
    tlm_score_tokens(context, state, tokens, 7, scores);
    tlm_score_sequence(context, state, tokens, 7, scores, NULL);
    tlm_top(context, state, "w", 1, tokens, 2, 3, top, found);
    tlm_top(context, state, NULL, 0, NULL, 0, 3, top, found);
    tlm_state_save(model, state, saved);
    tlm_state_restore(model, saved, tlm_state_saved_size(model), state);
    tlm_tokenize(model, "w01 It's a\n\xc3\xa9", 13, found, 8, &count);
    tlm_find_token(model, "w01", 3);
    tlm_token_text(model, 0, (char *)scores, found);
    check(calls == before, "%s: %ld calls for memory", name, calls - before);
    tlm_context_close(context);
    const tlm_options options = {.preview = 2};
    if (tlm_context_open(model, &options, &context) == TLM_OK) {
        const long opened = calls;
        previews += tlm_context_preview(context) == 2;
        tlm_top(context, state, "w", 1, tokens, 2, 3, top, found);
        tlm_top(context, state, NULL, 0, NULL, 0, 3, top, found);
        check(calls == opened, "%s: %ld calls for memory with a preview", name, calls - opened);
        tlm_context_close(context);
    }
    free(state);
    free(saved);
    free(scores);
}

/* Whatever call finds no memory: an error and nothing left behind. */
static void test_no_memory(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (long after = 0; after < 8; after++) {
        const long before = blocks;
        tlm_model *model;
        tlm_context *context = NULL;
        const tlm_options options = {.threads = 3};
        refuse_after = after;
        tlm_status status = tlm_open_file(path, &model, NULL, 0);
        if (status == TLM_OK)
            status = tlm_context_open(model, &options, &context);
        check(status == TLM_OK || status == TLM_ERROR_MEMORY, "%s: status %d", name, (int)status);
        check(status == TLM_OK || context == NULL, "%s: a context of no memory", name);
        refuse_after = -1;
        tlm_context_close(context);
        tlm_close(model);
        check(blocks == before, "%s: %ld blocks left", name, blocks - before);
    }
}

static void test_soak(const char *folder, unsigned long steps)
{
    tlm_model *model = open_model(folder, "good-lstm");
    if (model == NULL)
        return;
    tlm_context *context = open_context(model, 1, 1, NULL);
    const uint32_t size = size_of(model);
    const size_t floats = tlm_state_size(model) / sizeof(float);
    float *state = take(floats * sizeof *state), score = 0;
    uint32_t random = 11;
    const long before = calls;
    unsigned long bad = 0;
    tlm_state_init(model, state);
    for (unsigned long i = 0; i < steps; i++) {
        const uint32_t token = draw(&random) % size;
        bad += tlm_step(context, state, token) == TLM_OK ? 0 : 1;
        if (i % 1000 == 0) {
            bad += tlm_score_tokens(context, state, &token, 1, &score) == TLM_OK ? 0 : 1;
            bad += isfinite(score) ? 0 : 1;
            for (size_t k = 0; k < floats; k++)
                bad += isfinite(state[k]) ? 0 : 1;
        }
    }
    check(bad == 0, "%lu of %lu steps went wrong", bad, steps);
    check(calls == before, "%ld calls for memory in %lu steps", calls - before, steps);
    free(state);
    tlm_context_close(context);
    tlm_close(model);
    printf("%lu steps\n", steps);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        if (for_each_model(argv[1], test_calls) > 0)
            check(previews > 3, "%u previews are made", previews);
        test_no_memory(argv[1], "good-lstm");
        test_no_memory(argv[1], "good-vocabulary-bpe");
        test_no_memory(argv[1], "good-vocabulary-words-order");
        test_soak(argv[1], argc > 2 ? strtoul(argv[2], NULL, 10) : STEPS);
        check(blocks == 0, "%ld blocks are never freed", blocks);
    } else {
        printf("SKIPPED: no folder of models is given\n");
    }
    return end_of_test();
}
