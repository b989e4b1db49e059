/* What the tests on models share: checks, files, numbers. */
#ifndef RUN_MODEL_H
#define RUN_MODEL_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "terselm.h"

static _Atomic unsigned checks, failures; /* threads check, too */

static inline TLM_PRINTF(2, 3) void check(bool good, const char *format, ...)
{
    checks++;
    if (!good) {
        va_list arguments;
        va_start(arguments, format);
        failures++;
        printf("FAILED: ");
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
}

/* A block of memory, or the end of the test. */
static inline void *take(size_t size)
{
    void *block = malloc(size == 0 ? 1 : size);
    if (block == NULL) {
        printf("FAILED: no memory for %zu bytes\n", size);
        exit(2);
    }
    return block;
}

static inline uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline bool same(const float *a, const float *b, size_t count)
{
    return memcmp(a, b, count * sizeof *a) == 0; /* bit for bit */
}

static inline tlm_model *open_model(const char *folder, const char *name)
{
    char path[1024], message[300];
    tlm_model *model;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const tlm_status status = tlm_open_file(path, &model, message, sizeof message);
    check(status == TLM_OK, "%s: %s", name, message);
    return model;
}

static inline tlm_context *open_context(const tlm_model *model, uint32_t batch, uint32_t threads,
                                        const char *kernels)
{
    const tlm_options options = {.batch = batch, .threads = threads, .kernels = kernels};
    tlm_context *context;
    const tlm_status status = tlm_context_open(model, &options, &context);
    check(status == TLM_OK, "a context: %s", tlm_error_text(status));
    if (status != TLM_OK)
        exit(2);
    return context;
}

static inline uint32_t size_of(const tlm_model *model)
{
    tlm_description about;
    check(tlm_describe(model, &about) == TLM_OK, "a description");
    return about.vocabulary_size;
}

typedef void on_model(const tlm_model *model, const char *name);

/* Open every good file of the manifest; returns how many there are. */
static inline unsigned for_each_model(const char *folder, on_model *call)
{
    char path[1024], line[512];
    unsigned files = 0;
    snprintf(path, sizeof path, "%s/manifest.txt", folder);
    FILE *manifest = fopen(path, "r");
    if (manifest == NULL) {
        printf("SKIPPED: there is no %s; run `make files`\n", path);
        return 0;
    }
    while (fgets(line, sizeof line, manifest) != NULL) {
        line[strcspn(line, "\t\n")] = '\0';
        if (strncmp(line, "good-", 5) != 0)
            continue;
        tlm_model *model = open_model(folder, line);
        if (model != NULL)
            call(model, line);
        tlm_close(model);
        files++;
    }
    fclose(manifest);
    printf("%u models\n", files);
    return files;
}

static inline int end_of_test(void)
{
    printf("%u checks, %u failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}

#endif
