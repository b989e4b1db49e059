/* tlm-bench: how fast a model file runs on this machine, and the profile that other programs read.
 *
 * --json prints one object, the device profile. Times are microseconds, sizes bytes:
 *
 *   device_profile           1, the version of these keys
 *   version                  of terselm
 *   machine                  {cpu, system, architecture}; cpu is "" where the machine does not say
 *   kernels, threads, batch  what was computed with; batch only for tokens_per_second
 *   preview                  bits of the preview that top5_us was measured with; 0: none
 *   steps                    how often each time of a step was measured
 *   model                    {path, bytes, bytes_read by a token, cell, hidden, embedding, vocabulary, output, tied,
 *                            matrices}
 *   open_us                  median of opening the file, all its checks included; it was in memory
 *   step_and_probabilities_us, step_us, top5_us
 *                            {median, p95}: a token read and the log-probabilities of all tokens;
 *                            a token read alone; the 5 most likely tokens after it
 *   tokens_per_second        tokens read and log-probabilities of all tokens, `batch` states at once
 *   working_bytes            of a context with batch 1
 *   peak_resident_bytes      of the program, before anything with a batch; the mapped file counts.
 *                            null where the machine does not say
 *   read_bytes_per_second    of as many bytes as a token reads, again and again, by `threads` threads
 *   floor_us                 model.bytes_read over that: no token can be faster
 *   times_floor              step_and_probabilities_us.median over floor_us */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "machine.h"

enum { OPENINGS = 7, WARM_UP = 20, MOST_STEPS = 10000000, NAME = 128 };

const char *tool_name = "tlm-bench";

static const char HELP[] =
    "tlm-bench: how fast a model file runs on this machine\n"
    "\n"
    "  tlm-bench MODEL [--steps N] [--batch N] [--threads N] [--kernels NAME] [--preview BITS]\n"
    "            [--preview-fast] [--json]\n"
    "\n"
    "  --steps N        tokens to measure, 1000\n"
    "  --batch N        states stepped together for tokens a second, 32\n"
    "  --threads N      threads that share large products, 1\n"
    "  --kernels NAME   portable, avx2, avx512vnni, neon, neondot; the fastest that can run\n"
    "  --preview BITS   top 5 with a preview of the output layer of 2, 3 or 4 bits\n"
    "  --preview-fast   with --preview: may miss a word\n"
    "  --json           a device profile, for programs\n"
    "\n"
    "Examples:\n"
    "  tlm-bench small.safetensors\n"
    "  tlm-bench small.safetensors --threads 2 --json > profile.json\n";

typedef struct times {
    double median;
    double p95;
} times;

typedef struct request {
    const char *path;
    uint32_t steps;
    tlm_options engine;
    bool json;
} request;

typedef struct measured {
    tlm_description model;
    const char *kernels;
    double open;
    times both, step, top;
    double tokens_per_second;
    size_t working;
    uint32_t preview;
    uint64_t peak;
    double bandwidth;
    double floor;
} measured;

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static times times_of(double *seconds, size_t count)
{
    qsort(seconds, count, sizeof *seconds, by_size);
    return (times){1e6 * seconds[count / 2], 1e6 * seconds[(count - 1) * 95 / 100]};
}

/* Some other token each time, so that rows of the embedding are read as in a text. */
static uint32_t next_token(uint64_t *seed, uint32_t size)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % size);
}

/* Open it several times; the last one stays open. */
static tlm_model *time_opening(const char *path, measured *m)
{
    double seconds[OPENINGS];
    tlm_model *model = open_model(path); /* so that the file is in memory */
    for (int i = 0; i < OPENINGS; i++) {
        tlm_close(model);
        const double start = now();
        model = open_model(path);
        seconds[i] = now() - start;
    }
    m->open = times_of(seconds, OPENINGS).median;
    return model;
}

static void time_steps(const tlm_model *model, const request *r, measured *m)
{
    tlm_options one = r->engine;
    one.batch = 1;
    tlm_context *context = open_context(model, &one);
    void *state = new_state(model);
    float *out = take(m->model.vocabulary_size, sizeof *out);
    double *both = take(r->steps, sizeof *both);
    double *step = take(r->steps, sizeof *step);
    double *top = take(r->steps, sizeof *top);
    tlm_choice choices[5];
    uint32_t found;
    uint64_t seed = 1;
    m->kernels = tlm_context_kernels(context);
    m->working = tlm_context_bytes(context);
    m->preview = tlm_context_preview(context);
    note_preview(context, &one);
    for (uint32_t i = 0; i < r->steps + WARM_UP; i++) {
        const uint32_t token = next_token(&seed, m->model.vocabulary_size);
        const double start = now();
        must(tlm_step(context, state, token), "a step");
        must(tlm_log_probabilities(context, state, out), "a step");
        if (i >= WARM_UP)
            both[i - WARM_UP] = now() - start;
    }
    /* Alone, a step may find its matrices in the cache: so it is for a program that only reads. */
    for (uint32_t i = 0; i < r->steps; i++) {
        const double start = now();
        must(tlm_step(context, state, next_token(&seed, m->model.vocabulary_size)), "a step");
        step[i] = now() - start;
    }
    for (uint32_t i = 0; i < r->steps; i++) {
        const double start = now();
        must(tlm_top(context, state, NULL, 0, NULL, 0, 5, choices, &found), "a prediction");
        top[i] = now() - start;
    }
    m->both = times_of(both, r->steps);
    m->step = times_of(step, r->steps);
    m->top = times_of(top, r->steps);
    m->peak = peak_resident();
    free(top);
    free(step);
    free(both);
    free(out);
    free(state);
    tlm_context_close(context);
}

static void time_batch(const tlm_model *model, const request *r, measured *m)
{
    const uint32_t batch = r->engine.batch, size = m->model.vocabulary_size;
    tlm_options engine = r->engine;
    engine.preview = 0; /* which is for the best of one state */
    engine.preview_mode = TLM_PREVIEW_EXACT;
    tlm_context *context = open_context(model, &engine);
    void **states = take(batch, sizeof *states);
    uint32_t *tokens = take(batch, sizeof *tokens);
    float *out = take((size_t)batch * size, sizeof *out);
    const uint32_t rounds = r->steps / batch + 2; /* the first warms up */
    double *seconds = take(rounds, sizeof *seconds);
    uint64_t seed = 2;
    for (uint32_t i = 0; i < batch; i++)
        states[i] = new_state(model);
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < batch; i++)
            tokens[i] = next_token(&seed, size);
        const double start = now();
        must(tlm_step_many(context, batch, states, tokens), "a step");
        must(tlm_log_probabilities_many(context, batch, (const void *const *)states, out),
             "a step");
        seconds[round] = now() - start;
    }
    m->tokens_per_second = batch * 1e6 / times_of(seconds + 1, rounds - 1).median;
    for (uint32_t i = 0; i < batch; i++)
        free(states[i]);
    free(seconds);
    free(out);
    free(tokens);
    free(states);
    tlm_context_close(context);
}

static void print_string(const char *string)
{
    putchar('"');
    for (; *string; string++)
        if (*string == '"' || *string == '\\')
            printf("\\%c", *string);
        else if ((unsigned char)*string < 0x20)
            printf("\\u%04x", (unsigned)(unsigned char)*string);
        else
            putchar(*string);
    putchar('"');
}

static void print_times(const char *key, times t)
{
    printf("  \"%s\": {\"median\": %.3f, \"p95\": %.3f},\n", key, t.median, t.p95);
}

static void print_json(const request *r, const measured *m, const char *cpu)
{
    const tlm_description *d = &m->model;
    printf("{\n  \"device_profile\": 1,\n  \"version\": \"%s\",\n  \"machine\": {\"cpu\": ",
           TLM_VERSION);
    print_string(cpu);
    printf(", \"system\": \"%s\", \"architecture\": \"%s\"},\n", system_name(),
           architecture_name());
    printf("  \"preview\": %u,\n", (unsigned)m->preview);
    printf("  \"kernels\": \"%s\",\n  \"threads\": %u,\n  \"batch\": %u,\n  \"steps\": %u,\n",
           m->kernels, (unsigned)r->engine.threads, (unsigned)r->engine.batch, (unsigned)r->steps);
    printf("  \"model\": {\"path\": ");
    print_string(r->path);
    printf(", \"bytes\": %llu, \"bytes_read\": %llu, \"cell\": ",
           (unsigned long long)d->file_bytes, (unsigned long long)d->read_bytes);
    print_string(d->cell);
    printf(", \"hidden\": [");
    for (uint32_t i = 0; i < d->layers; i++)
        printf("%s%u", i ? ", " : "", (unsigned)d->hidden[i]);
    printf("], \"embedding\": %u, \"vocabulary\": %u, \"output\": ", (unsigned)d->embedding,
           (unsigned)d->vocabulary_size);
    print_string(d->output);
    printf(", \"tied\": %s, \"matrices\": %u},\n", d->tied ? "true" : "false",
           (unsigned)d->matrices);
    printf("  \"open_us\": %.1f,\n", m->open);
    print_times("step_and_probabilities_us", m->both);
    print_times("step_us", m->step);
    print_times("top5_us", m->top);
    printf("  \"tokens_per_second\": %.1f,\n  \"working_bytes\": %zu,\n", m->tokens_per_second,
           m->working);
    if (m->peak)
        printf("  \"peak_resident_bytes\": %llu,\n", (unsigned long long)m->peak);
    else
        printf("  \"peak_resident_bytes\": null,\n");
    printf("  \"read_bytes_per_second\": %.0f,\n  \"floor_us\": %.3f,\n  \"times_floor\": %.3f\n}\n",
           m->bandwidth, m->floor, m->both.median / m->floor);
}

static void print_table(const request *r, const measured *m, const char *cpu)
{
    printf("machine            %s, %s, %s\n", cpu[0] ? cpu : "unknown processor",
           architecture_name(), system_name());
    printf("kernels            %s, %u thread%s\n", m->kernels, (unsigned)r->engine.threads,
           r->engine.threads == 1 ? "" : "s");
    printf("file               %llu bytes\n", (unsigned long long)m->model.file_bytes);
    printf("open               %.0f us\n\n", m->open);
    printf("one token              median          p95\n");
    printf("step, all words    %10.1f   %10.1f us\n", m->both.median, m->both.p95);
    printf("step               %10.1f   %10.1f us\n", m->step.median, m->step.p95);
    printf("top 5              %10.1f   %10.1f us", m->top.median, m->top.p95);
    if (m->preview)
        printf(", by a preview of %u bits", (unsigned)m->preview);
    printf("\n\n");
    printf("tokens a second    %.0f, %u at once\n", m->tokens_per_second,
           (unsigned)r->engine.batch);
    printf("working memory     %zu bytes\n", m->working);
    if (m->peak)
        printf("peak resident      %llu bytes, the mapped file included\n",
               (unsigned long long)m->peak);
    printf("read bandwidth     %.2f GB/s, over as many bytes as a token reads\n",
           m->bandwidth / 1e9);
    printf("floor              %.1f us to read those once; a token takes %.2f times that\n",
           m->floor, m->both.median / m->floor);
}

static void read_arguments(request *r, arguments *a)
{
    const char *argument;
    bool option = false;
    while ((argument = next_argument(a, &option)) != NULL) {
        if (option && (is_option(argument, "--help") || is_option(argument, "-h"))) {
            fputs(HELP, stdout);
            finish_output();
            exit(0);
        }
        if (option && is_option(argument, "--steps")) {
            r->steps = number_of(a, argument, 1, MOST_STEPS);
        } else if (option && strcmp(argument, "--json") == 0) {
            r->json = true;
        } else if (option) {
            if (!take_engine_option(a, argument, &r->engine))
                misused("there is no option %s; see tlm-bench --help", argument);
        } else if (r->path != NULL) {
            misused("%s is one argument too many; see tlm-bench --help", argument);
        } else {
            r->path = argument;
        }
    }
    if (r->path == NULL)
        misused("a model file is missing; see tlm-bench --help");
}

int main(int count, char **all)
{
    request r = {.steps = 1000, .engine = {.batch = 32, .threads = 1}};
    arguments a = {.all = all, .count = count, .next = 1};
    measured m = {0};
    char cpu[NAME];
    read_arguments(&r, &a);
    tlm_model *model = time_opening(r.path, &m);
    must(tlm_describe(model, &m.model), "the model");
    time_steps(model, &r, &m);
    time_batch(model, &r, &m);
    m.bandwidth = read_bandwidth((size_t)m.model.read_bytes, r.engine.threads);
    if (!(m.bandwidth > 0))
        failed("no memory to measure the bandwidth: %llu bytes are needed",
               (unsigned long long)m.model.read_bytes);
    m.floor = 1e6 * (double)m.model.read_bytes / m.bandwidth;
    cpu_name(cpu, sizeof cpu);
    (r.json ? print_json : print_table)(&r, &m, cpu);
    tlm_close(model);
    finish_output();
    return 0;
}
