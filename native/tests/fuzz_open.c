/* A libFuzzer target: open the bytes as a model, and run it if that works.
 *
 * Built by `make fuzz` alone, with -DTLM_FUZZING: the checksum is not compared (it would stop the
 * fuzzer at once) and tensor trains may need less work. Neither is ever built for use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "terselm.h"

#ifndef TLM_FUZZING
#error "the library is fuzzed with -DTLM_FUZZING only; see `make fuzz`"
#endif

enum { MOST_TOKENS = 1 << 16, MOST_BYTES = 64 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static void require(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "wrong: %s\n", what);
        abort();
    }
}

static void read_texts(const tlm_model *model, const uint8_t *data, size_t size, uint32_t tokens)
{
    static const char text[] = "It's the 3rd w01 <unk>\n\n  a\xc3\xa9\xe2\x82\xac \t A.B_c <eos> aaaa";
    uint32_t found[64];
    size_t count;
    const size_t end = size < 200 ? size : 200;
    tlm_tokenize(model, text, sizeof text - 1, found, 64, &count);
    if (tlm_tokenize(model, (const char *)data + size - end, end, found, 64, &count) == TLM_OK)
        for (size_t i = 0; i < count && i < 64; i++)
            require(found[i] < tokens, "a token of a text");
    for (uint32_t token = 0; token < tokens; token += 1 + tokens / 50) {
        char word[TLM_MAX_TOKEN_BYTES];
        uint32_t bytes;
        require(tlm_token_text(model, token, word, &bytes) == TLM_OK &&
                    bytes <= TLM_MAX_TOKEN_BYTES, "the text of a token");
        const uint32_t again = tlm_find_token(model, word, bytes);
        require(again < tokens, "the token of a text");
    }
}

static void run(tlm_context *context, const tlm_model *model, uint32_t tokens)
{
    unsigned char *state = malloc(tlm_state_size(model));
    unsigned char *saved = malloc(tlm_state_saved_size(model));
    float *scores = malloc((tokens + 5) * sizeof *scores); /* a sequence of 5, too */
    tlm_choice top[5];
    uint32_t found;
    if (state != NULL && saved != NULL && scores != NULL) {
        const uint32_t sequence[] = {tlm_start_token(model), 0, tokens - 1, tokens / 2, tokens / 3};
        require(tlm_state_init(model, state) == TLM_OK, "a state");
        for (unsigned i = 0; i < 3; i++)
            require(tlm_step(context, state, sequence[i]) == TLM_OK, "a step");
        require(tlm_step(context, state, tokens) == TLM_ERROR_ARGUMENT, "a token outside");
        require(tlm_log_probabilities(context, state, scores) == TLM_OK, "log-probabilities");
        require(tlm_score_sequence(context, state, sequence, 5, scores, NULL) == TLM_OK, "scores");
        require(tlm_top(context, state, NULL, 0, sequence, 2, 5, top, &found) == TLM_OK &&
                    found <= 5, "the most likely");
        require(tlm_top(context, state, "w", 1, NULL, 0, 5, top, &found) == TLM_OK, "a prefix");
        require(tlm_state_save(model, state, saved) == TLM_OK &&
                    tlm_state_restore(model, saved, tlm_state_saved_size(model), state) == TLM_OK,
                "a saved state");
    }
    free(state);
    free(saved);
    free(scores);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const kernels[] = {"portable", "avx2", NULL};
    /* A block of the very size: a read beyond it is seen. */
    unsigned char *copy = malloc(size == 0 ? 1 : size);
    tlm_model *model;
    char message[100];
    if (copy == NULL)
        return 0;
    memcpy(copy, data, size);
    if (tlm_open(copy, size, &model, message, sizeof message) == TLM_OK) {
        tlm_description about;
        require(tlm_describe(model, &about) == TLM_OK, "a description");
        read_texts(model, data, size, about.vocabulary_size);
        tlm_options options = {.batch = 1 + (uint32_t)(size / 3 % 2) * 3,
                               .kernels = kernels[size % 3]};
        tlm_context *context;
        if (options.kernels != NULL && !tlm_can_run(options.kernels))
            options.kernels = NULL;
        if (about.vocabulary_size <= MOST_TOKENS && tlm_state_size(model) <= MOST_BYTES &&
            tlm_context_open(model, &options, &context) == TLM_OK) {
            if (tlm_context_bytes(context) <= MOST_BYTES)
                run(context, model, about.vocabulary_size);
            tlm_context_close(context);
        }
        tlm_close(model);
    }
    free(copy);
    return 0;
}

/* Half of the changes keep the length of everything, so that more comes behind the container. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    uint64_t header = 0;
    if (size >= 8)
        memcpy(&header, data, 8);
    if (seed % 2 == 0 || size < 64 || header == 0 || header > size - 8)
        return LLVMFuzzerMutate(data, size, most);
    const size_t end = 8 + (size_t)header;
    unsigned random = seed / 2;
    for (unsigned i = 0; i < 1 + seed / 2 % 3; i++) {
        random = random * 1664525u + 1013904223u;
        if (random >> 31 || end == size) {
            size_t at = 8 + (random >> 8) % (end - 8);
            while (at < end && (data[at] < '0' || data[at] > '9'))
                at++;
            if (at < end)
                data[at] = (uint8_t)('0' + (random >> 4) % 10);
        } else {
            const size_t at = end + (random >> 8) % (size - end);
            data[at] = (uint8_t)(random >> 3 & 1 ? random >> 4 : data[at] ^ 1u << (random >> 4) % 8);
        }
    }
    return size;
}
