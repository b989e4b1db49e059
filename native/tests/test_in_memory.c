/* Models and contexts in memory of the caller's: exactly as much as is said, and not a byte less.
 *
 * Usage: test_in_memory FOLDER. Blocks have the very size that is given, so that a sanitizer sees
 * what lies beyond it. */
#include "run_model.h"

#define MODEL_STEP 16u
#define CONTEXT_STEP 64u

typedef struct file {
    unsigned char *bytes;
    size_t size;
} file;

static file read_whole(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "rb");
    file found = {NULL, 0};
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) {
        printf("FAILED: cannot read %s\n", path);
        exit(2);
    }
    found.size = (size_t)ftell(stream);
    found.bytes = take(found.size);
    rewind(stream);
    check(fread(found.bytes, 1, found.size, stream) == found.size, "%s is read", name);
    fclose(stream);
    return found;
}

/* `size` bytes at a multiple of `step`; `block` receives what must be freed. */
static void *take_at(size_t size, size_t step, void **block)
{
    unsigned char *start = take(size + step);
    *block = start;
    start += (step - (uintptr_t)start % step) % step;
    memset(start, 0xa5, size);
    return start;
}

/* What opening in a block of `size` bytes returns. */
static tlm_status try_size(file model, size_t size)
{
    void *block, *memory = take_at(size, MODEL_STEP, &block);
    tlm_model *out;
    const tlm_status status = tlm_open_in(model.bytes, model.size, memory, size, &out, NULL, 0);
    check((status == TLM_OK) == (out != NULL), "%zu bytes: a model or an error", size);
    free(block);
    return status;
}

static void test_sizes(file model, const char *name, size_t exact)
{
    check(try_size(model, exact) == TLM_OK, "%s: %zu bytes are enough", name, exact);
    check(try_size(model, exact - 1) == TLM_ERROR_MEMORY, "%s: %zu - 1 bytes", name, exact);
    for (size_t size = 0; size < exact; size += exact / 13 + 1)
        check(try_size(model, size) == TLM_ERROR_MEMORY, "%s: %zu of %zu bytes", name, size, exact);
}

/* The scores after two tokens. */
static void compute(tlm_context *context, const tlm_model *model, float *scores)
{
    float *state = take(tlm_state_size(model));
    check(tlm_state_init(model, state) == TLM_OK && tlm_step(context, state, 0) == TLM_OK &&
              tlm_step(context, state, size_of(model) - 1) == TLM_OK &&
              tlm_log_probabilities(context, state, scores) == TLM_OK, "scores");
    free(state);
}

static void test_context(const tlm_model *model, const tlm_model *reference, const char *name)
{
    const tlm_options options = {.batch = 3}, threads = {.threads = 2};
    const uint32_t words = size_of(model);
    float *scores = take(words * sizeof *scores), *expected = take(words * sizeof *expected);
    size_t size;
    void *block;
    tlm_context *context;
    check(tlm_context_size(model, &options, &size) == TLM_OK, "%s: a size", name);
    unsigned char *memory = take_at(size, CONTEXT_STEP, &block);
    check(tlm_context_open_in(model, &options, memory, size - 1, &context) == TLM_ERROR_MEMORY,
          "%s: a context in a byte less", name);
    check(tlm_context_open_in(model, &options, memory + 16, size, &context) == TLM_ERROR_ARGUMENT,
          "%s: a context at a multiple of 16", name);
    check(tlm_context_open_in(model, &threads, memory, size, &context) == TLM_ERROR_ARGUMENT &&
              context == NULL, "%s: threads take memory", name);
    check(tlm_context_open_in(model, &options, memory, size, &context) == TLM_OK &&
              tlm_context_bytes(context) == size, "%s: a context in %zu bytes", name, size);
    tlm_context *usual = open_context(reference, 3, 1, NULL);
    compute(context, model, scores);
    compute(usual, reference, expected);
    check(same(scores, expected, words), "%s: the same scores in any memory", name);
    tlm_context_close(context);
    tlm_context_close(usual);
    free(block);
    free(scores);
    free(expected);
}

static const char *folder;

static void test_model(const tlm_model *reference, const char *name)
{
    file bytes = read_whole(folder, name);
    size_t enough;
    void *block;
    tlm_model *model;
    char message[200];
    check(tlm_open_size(bytes.bytes, bytes.size, &enough, message, sizeof message) == TLM_OK,
          "%s: %s", name, message);
    unsigned char *memory = take_at(enough, MODEL_STEP, &block);
    check(tlm_open_in(bytes.bytes, bytes.size, memory + 8, enough - 8, &model, message,
                      sizeof message) == TLM_ERROR_ARGUMENT && strstr(message, "16") != NULL,
          "%s: memory at a multiple of 8: %s", name, message);
    check(tlm_open_in(bytes.bytes, bytes.size, memory, enough, &model, message, sizeof message) ==
              TLM_OK, "%s: %s", name, message);
    const size_t kept = tlm_model_bytes(model), opening = tlm_opening_bytes(model);
    check(kept <= opening && opening <= enough, "%s: %zu, %zu and %zu bytes", name, kept, opening,
          enough);
    memset(memory + kept, 0xff, enough - kept); /* the caller's again */
    test_context(model, reference, name);
    char text[TLM_MAX_TOKEN_BYTES];
    uint32_t size;
    for (uint32_t token = 0; token < size_of(model); token++) {
        check(tlm_token_text(model, token, text, &size) == TLM_OK, "%s: token %u", name, token);
        /* Byte pairs have a byte of this text too, which no text is made of. */
        const bool is_end = size == 1 && text[0] == '\n';
        check(tlm_find_token(model, text, size) == (is_end ? tlm_start_token(model) : token),
              "%s: token %u is found as another", name, token);
    }
    tlm_close(model);
    free(block);
    test_sizes(bytes, name, opening);
    free(bytes.bytes);
}

/* Bytes that are not those that were written. */
static void test_trust(void)
{
    file model = read_whole(folder, "good-lstm");
    tlm_model *out;
    size_t enough;
    void *block;
    model.bytes[model.size - 64] ^= 1; /* in the words: another one */
    tlm_open_size(model.bytes, model.size, &enough, NULL, 0);
    void *memory = take_at(enough, MODEL_STEP, &block);
    const tlm_status checked =
        tlm_open_in(model.bytes, model.size, memory, enough, &out, NULL, 0);
    check(checked == TLM_ERROR_CHECKSUM, "a changed byte: status %d", (int)checked);
    memset(memory, 0xa5, enough);
    check(tlm_open_in(model.bytes, 7, memory, enough, &out, NULL, 0) == TLM_ERROR_DAMAGED &&
              tlm_open_size(model.bytes, 7, &enough, NULL, 0) == TLM_ERROR_DAMAGED,
          "seven bytes are no model");
    model.bytes[model.size - 64] ^= 1;
    memcpy(strstr((char *)model.bytes + 8, "terselm.sha256") + strlen("terselm.sha256\": \""),
           "0123", 4);
    tlm_open_size(model.bytes, model.size, &enough, NULL, 0);
    check(tlm_open_in(model.bytes, model.size, memory, enough, &out, NULL, 0) ==
              TLM_ERROR_CHECKSUM, "another checksum");
    check(tlm_open_trusted_in(model.bytes, model.size, memory, enough, &out, NULL, 0) == TLM_OK,
          "another checksum, but trusted");
    free(block);
    free(model.bytes);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        folder = argv[1];
        for_each_model(folder, test_model);
        test_trust();
    } else {
        printf("SKIPPED: no folder of models is given\n");
    }
    return end_of_test();
}
