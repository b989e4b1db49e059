/* A whole program on terselm's C library: open, predict, complete, score, save, go on.
 *
 *   make -C native example
 *   native/build/plain/predict small.safetensors "the company said" th
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <terselm.h>

enum { WORDS = 3, MESSAGE = 256 };

/* Everything that a program holds for one text. */
typedef struct reader {
    tlm_model *model;
    tlm_context *context;
    void *state;
} reader;

static int failed(const char *what, tlm_status status)
{
    fprintf(stderr, "predict: %s: %s\n", what, tlm_error_text(status));
    return 1;
}

/* Print the most likely words that begin with `prefix`. */
static tlm_status print_words(const reader *r, const char *title, const char *prefix)
{
    tlm_choice choices[WORDS];
    uint32_t found = 0;
    const uint32_t unknown = tlm_unknown_token(r->model);
    const tlm_status status = tlm_top(r->context, r->state, prefix, strlen(prefix), &unknown,
                                      unknown != TLM_NO_TOKEN, WORDS, choices, &found);
    if (status != TLM_OK)
        return status;
    printf("%s:", title);
    for (uint32_t i = 0; i < found; i++) {
        char word[TLM_MAX_TOKEN_BYTES];
        uint32_t size = 0;
        tlm_token_text(r->model, choices[i].token, word, &size);
        printf("  %.*s %.4f", (int)size, word, exp(choices[i].log_probability));
    }
    printf("\n");
    return TLM_OK;
}

/* The start of a text, then the text; `*total` receives the logarithm of its probability. */
static tlm_status read_text(const reader *r, const char *content, double *total)
{
    const size_t size = strlen(content);
    size_t count = 0;
    uint32_t *tokens = malloc((size + 1) * sizeof *tokens); /* no token is shorter than a byte */
    if (tokens == NULL)
        return TLM_ERROR_MEMORY;
    tlm_status status = tlm_state_init(r->model, r->state);
    if (status == TLM_OK)
        status = tlm_step(r->context, r->state, tlm_start_token(r->model));
    if (status == TLM_OK)
        status = tlm_tokenize(r->model, content, size, tokens, size, &count);
    if (status == TLM_OK)
        status = tlm_score_sequence(r->context, r->state, tokens, count, NULL, total);
    free(tokens);
    return status;
}

/* Save the state, forget it, and take it back, as a program does that was closed in between. */
static tlm_status save_and_restore(const reader *r)
{
    const size_t size = tlm_state_saved_size(r->model);
    void *saved = malloc(size);
    if (saved == NULL)
        return TLM_ERROR_MEMORY;
    tlm_status status = tlm_state_save(r->model, r->state, saved);
    memset(r->state, 0, tlm_state_size(r->model));
    if (status == TLM_OK)
        status = tlm_state_restore(r->model, saved, size, r->state);
    if (status == TLM_OK)
        printf("state: %zu bytes saved and restored\n", size);
    free(saved);
    return status;
}

static int use(const reader *r, const char *content, const char *prefix)
{
    double total = 0;
    tlm_status status = read_text(r, content, &total);
    if (status != TLM_OK)
        return failed("the text", status);
    printf("ln probability: %.4f\n", total);
    if ((status = print_words(r, "next", "")) != TLM_OK ||
        (status = print_words(r, "completed", prefix)) != TLM_OK)
        return failed("the prediction", status);
    if ((status = save_and_restore(r)) != TLM_OK)
        return failed("the state", status);
    if ((status = print_words(r, "next", "")) != TLM_OK)
        return failed("the prediction", status);
    return 0;
}

int main(int count, char **arguments)
{
    char message[MESSAGE];
    reader r = {0};
    if (count != 4) {
        fprintf(stderr, "predict: give a model file, a text and the beginning of a word\n");
        return 2;
    }
    tlm_status status = tlm_open_file(arguments[1], &r.model, message, sizeof message);
    if (status != TLM_OK) {
        fprintf(stderr, "predict: %s: %s\n", arguments[1], message);
        return 1;
    }
    int result = 1;
    const tlm_options options = {.batch = 16}; /* tokens of a text scored at once */
    status = tlm_context_open(r.model, &options, &r.context);
    r.state = malloc(tlm_state_size(r.model));
    if (status != TLM_OK || r.state == NULL)
        failed("the context", status != TLM_OK ? status : TLM_ERROR_MEMORY);
    else
        result = use(&r, arguments[2], arguments[3]);
    free(r.state);
    tlm_context_close(r.context);
    tlm_close(r.model);
    return result;
}
