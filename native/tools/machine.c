/* What tlm-bench asks the machine. */
#if defined(__unix__) || defined(__APPLE__)
#define TOOL_POSIX 1
#define _POSIX_C_SOURCE 200809L
#define _DARWIN_C_SOURCE 1 /* ru_maxrss */
#endif

#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef TOOL_POSIX
#include <pthread.h>
#include <sys/resource.h>
#endif

enum { LINE = 256, LINE_WORDS = 8, RUNS = 40, MOST_THREADS = 256 };
#define RUN_SECONDS 0.004

double now(void)
{
    struct timespec t = {0};
#ifdef TOOL_POSIX
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    timespec_get(&t, TIME_UTC);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The value of the first line of a file that begins with one of `keys`, without its spaces. */
static void value_in(const char *path, const char *const *keys, char *value, size_t size)
{
    char line[LINE];
    FILE *file = fopen(path, "r");
    value[0] = '\0';
    while (file != NULL && value[0] == '\0' && fgets(line, sizeof line, file) != NULL)
        for (size_t i = 0; keys[i] != NULL; i++) {
            const char *colon = strchr(line, ':');
            if (colon == NULL || strncmp(line, keys[i], strlen(keys[i])) != 0)
                continue;
            colon += 1 + strspn(colon + 1, " \t");
            snprintf(value, size, "%.*s", (int)strcspn(colon, "\n"), colon);
            break;
        }
    if (file != NULL)
        fclose(file);
}

void cpu_name(char *name, size_t size)
{
    /* ARM's kernels say Hardware, or nothing but numbers. */
    static const char *const KEYS[] = {"model name", "Hardware", "Model", "CPU part", NULL};
    value_in("/proc/cpuinfo", KEYS, name, size);
}

const char *system_name(void)
{
#if defined(__ANDROID__)
    return "Android";
#elif defined(__linux__)
    return "Linux";
#elif defined(__APPLE__)
    return "Apple";
#elif defined(_WIN32)
    return "Windows";
#else
    return "other";
#endif
}

const char *architecture_name(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    return "x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
    return "aarch64";
#elif defined(__arm__)
    return "arm";
#elif defined(__riscv)
    return "riscv";
#else
    return "other";
#endif
}

uint64_t peak_resident(void)
{
    static const char *const KEYS[] = {"VmHWM", NULL};
    char value[LINE];
    value_in("/proc/self/status", KEYS, value, sizeof value);
    if (value[0] != '\0')
        return strtoull(value, NULL, 10) * 1024;
#ifdef TOOL_POSIX
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) == 0) {
#ifdef __APPLE__
        return (uint64_t)use.ru_maxrss;
#else
        return (uint64_t)use.ru_maxrss * 1024;
#endif
    }
#endif
    return 0;
}

/* The part of the memory that one thread reads. */
typedef struct part {
    const uint64_t *words; /* a multiple of LINE_WORDS of them */
    size_t count;
    unsigned rounds;
    uint64_t sum;
} part;

#ifdef __GNUC__
typedef uint64_t two __attribute__((vector_size(16)));
#else
typedef uint64_t two; /* half of the words are not looked at; their lines are read */
#endif

/* Words 2k and 2k + 1 of a line. */
static two words_at(const uint64_t *line, size_t k)
{
    two words;
    memcpy(&words, line + 2 * k, sizeof words);
    return words;
}

/* Mix all words into `sums`, so that no compiler can leave one out. */
static void read_words(const uint64_t *words, size_t count, two *sums)
{
    two a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (size_t i = 0; i < count; i += LINE_WORDS) {
        a ^= words_at(words + i, 0);
        b ^= words_at(words + i, 1);
        c ^= words_at(words + i, 2);
        d ^= words_at(words + i, 3);
    }
    sums[0] = b + d; /* the next round depends on this one */
    sums[1] = c;
    sums[2] = d;
    sums[3] = a;
}

static void *read_part(void *given)
{
    part *p = given;
    two sums[LINE_WORDS / 2];
    memset(sums, 0, sizeof sums);
    for (unsigned round = 0; round < p->rounds; round++)
        read_words(p->words, p->count, sums);
    uint64_t words[sizeof(sums) / (sizeof(uint64_t))];
    memcpy(words, sums, sizeof words);
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        p->sum += words[k];
    return NULL;
}

static double seconds_to_read(part *parts, uint32_t threads, unsigned rounds)
{
    for (uint32_t i = 0; i < threads; i++)
        parts[i].rounds = rounds;
    const double start = now();
#ifdef TOOL_POSIX
    pthread_t others[MOST_THREADS];
    uint32_t started = 1;
    while (started < threads &&
           pthread_create(&others[started], NULL, read_part, &parts[started]) == 0)
        started++;
    read_part(&parts[0]);
    for (uint32_t i = started; i < threads; i++)
        read_part(&parts[i]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(others[i], NULL);
#else
    for (uint32_t i = 0; i < threads; i++)
        read_part(&parts[i]);
#endif
    return now() - start;
}

double read_bandwidth(size_t bytes, uint32_t threads)
{
    part parts[MOST_THREADS];
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    const size_t each = (bytes / sizeof(uint64_t) / threads + LINE_WORDS) / LINE_WORDS * LINE_WORDS;
    uint64_t *words = malloc(each * threads * sizeof *words);
    if (words == NULL)
        return 0;
    for (size_t i = 0; i < each * threads; i++)
        words[i] = i;
    for (uint32_t i = 0; i < threads; i++)
        parts[i] = (part){words + i * each, each, 1, 0};
    unsigned rounds = 1;
    while (seconds_to_read(parts, threads, rounds) < RUN_SECONDS && rounds < 1u << 24)
        rounds *= 2;
    /* The best run: what else the machine does is no part of a floor. */
    double best = seconds_to_read(parts, threads, rounds);
    for (int run = 1; run < RUNS; run++) {
        const double seconds = seconds_to_read(parts, threads, rounds);
        best = seconds < best ? seconds : best;
    }
    volatile uint64_t kept = parts[0].sum;
    (void)kept;
    free(words);
    return (double)(each * threads * sizeof *words) * rounds / best;
}
