/* Threads: as many as you like give the same, bit for bit, and models can be shared.
 *
 * Usage: test_threads FOLDER. `make SANITIZE=thread test` looks for races. */
#include "run_model.h"

#if defined(__wasm__) || defined(_WIN32)

/* A library without threads says so. */
static void test_model(const tlm_model *model, const char *name)
{
    const tlm_options two = {.threads = 2};
    tlm_context *context;
    check(tlm_context_open(model, &two, &context) == TLM_ERROR_ARGUMENT, "%s: threads", name);
}

#else

#include <pthread.h>

enum { BATCH = 1024, STEPS = 3, READERS = 3 };

/* What a context of so many threads computes: states after steps, and scores. */
static void compute(const tlm_model *model, uint32_t batch, uint32_t threads, unsigned char *states,
                    float *scores)
{
    tlm_context *context = open_context(model, batch, threads, NULL);
    const size_t bytes = tlm_state_size(model);
    const uint32_t size = size_of(model);
    void **each = take(batch * sizeof *each);
    uint32_t *tokens = take(batch * sizeof *tokens), random = 5;
    for (uint32_t i = 0; i < batch; i++) {
        each[i] = states + i * bytes;
        tlm_state_init(model, each[i]);
    }
    for (unsigned t = 0; t < STEPS; t++) {
        for (uint32_t i = 0; i < batch; i++)
            tokens[i] = draw(&random) % size;
        check(tlm_step_many(context, batch, each, tokens) == TLM_OK, "steps");
    }
    check(tlm_score_sequence(context, each[0], tokens, batch, scores, NULL) == TLM_OK, "scores");
    free(each);
    free(tokens);
    tlm_context_close(context);
}

static void test_counts(const tlm_model *model, const char *name)
{
    static const uint32_t counts[] = {2, 3, 8};
    static const uint32_t batches[] = {1, BATCH};
    for (unsigned b = 0; b < 2; b++) {
        const uint32_t batch = batches[b];
        const size_t bytes = batch * tlm_state_size(model);
        unsigned char *states = take(bytes), *others = take(bytes);
        float *scores = take(batch * sizeof *scores), *other = take(batch * sizeof *other);
        compute(model, batch, 1, states, scores);
        for (unsigned i = 0; i < 3; i++) {
            compute(model, batch, counts[i], others, other);
            check(memcmp(states, others, bytes) == 0 && same(scores, other, batch),
                  "%s: %u threads give other numbers", name, counts[i]);
        }
        free(states);
        free(others);
        free(scores);
        free(other);
    }
}

typedef struct reader {
    const tlm_model *model;
    pthread_t thread;
    unsigned char *states;
    float *scores;
} reader;

static void *serve(void *argument)
{
    reader *r = argument;
    tlm_context *context = open_context(r->model, 16, 2, NULL);
    uint32_t tokens[64], random = 9, found[8];
    const uint32_t size = size_of(r->model);
    size_t count;
    tlm_choice top[3];
    for (unsigned i = 0; i < 64; i++)
        tokens[i] = draw(&random) % size;
    tlm_state_init(r->model, r->states);
    tlm_score_sequence(context, r->states, tokens, 64, r->scores, NULL);
    tlm_top(context, r->states, "w", 1, NULL, 0, 3, top, found);
    tlm_tokenize(r->model, "w01 w02 x", 9, found, 8, &count);
    tlm_context_close(context);
    return NULL;
}

/* Threads with contexts of their own read one model at once. */
static void test_shared(const tlm_model *model, const char *name)
{
    reader readers[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (reader){.model = model, .states = take(tlm_state_size(model)),
                              .scores = take(64 * sizeof(float))};
        if (pthread_create(&readers[i].thread, NULL, serve, &readers[i]) != 0)
            exit(2);
    }
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i].thread, NULL);
    for (unsigned i = 0; i < READERS; i++) {
        check(same(readers[i].scores, readers[0].scores, 64) &&
                  memcmp(readers[i].states, readers[0].states, tlm_state_size(model)) == 0,
              "%s: thread %u computes something else", name, i);
        if (i > 0) {
            free(readers[i].states);
            free(readers[i].scores);
        }
    }
    free(readers[0].states);
    free(readers[0].scores);
}

static void test_model(const tlm_model *model, const char *name)
{
    if (strstr(name, "vocabulary") == NULL && strstr(name, "preview") == NULL) /* large */
        test_counts(model, name);
    test_shared(model, name);
}

#endif

int main(int argc, char **argv)
{
    if (argc > 1)
        for_each_model(argv[1], test_model);
    else
        printf("SKIPPED: no folder of models is given\n");
    return end_of_test();
}
