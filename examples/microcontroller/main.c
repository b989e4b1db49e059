/* Predicts from a model in flash: no files, no malloc, no printf.
 *
 * Reads lines of text, prints the three most likely tokens after each with their probabilities.
 * `model.h` is what this writes: terselm export MODEL --to c-array --out model.h
 *
 * A board has its own ways to read and to write a character; here they are read() and write(),
 * which a PC has; startup.c has them for a Cortex-M in qemu. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

#define LINE 256

MODEL_STATIC_MEMORY(memory);

static void put(const char *text, size_t size)
{
    while (size > 0) {
        const long written = (long)write(1, text, size);
        if (written <= 0)
            return;
        text += written;
        size -= (size_t)written;
    }
}

static void put_text(const char *text)
{
    put(text, strlen(text));
}

/* A line without its end; -1 after the last. What is beyond `room` is left out. */
static int get_line(char *line, size_t room)
{
    size_t size = 0;
    char next;
    while (read(0, &next, 1) == 1) {
        if (next == '\n')
            return (int)size;
        if (size < room)
            line[size++] = next;
    }
    return size > 0 ? (int)size : -1;
}

/* "  word 12.3 %" */
static void put_choice(const tlm_model *model, tlm_choice choice)
{
    char text[TLM_MAX_TOKEN_BYTES], digits[] = "100.0 %\n";
    const uint32_t share = (uint32_t)(1000.0f * expf(choice.log_probability) + 0.5f);
    const char *first = share < 100 ? digits + 2 : share < 1000 ? digits + 1 : digits;
    uint32_t size;
    tlm_token_text(model, choice.token, text, &size);
    put_text("  ");
    if (size == 1 && text[0] == '\n')
        put_text("\\n");
    else
        put(text, size);
    put_text(" ");
    digits[1] = (char)('0' + share / 100 % 10);
    digits[2] = (char)('0' + share / 10 % 10);
    digits[4] = (char)('0' + share % 10);
    put_text(first);
}

static tlm_status read_line(tlm_context *context, const tlm_model *model, void *state,
                            const char *line, size_t size)
{
    uint32_t tokens[LINE];
    size_t count;
    tlm_status status = tlm_tokenize(model, line, size, tokens, LINE, &count);
    for (size_t i = 0; status == TLM_OK && i < count; i++)
        status = tlm_step(context, state, tokens[i]);
    return status;
}

int main(void)
{
    tlm_model *model = NULL;
    tlm_context *context = NULL;
    void *state = NULL;
    char line[LINE];
    tlm_choice best[3];
    uint32_t found = 0;
    int size;
    tlm_status status = model_open(memory, &model, &context, &state);
    const uint32_t unknown = tlm_unknown_token(model); /* is left out */
    while (status == TLM_OK && (size = get_line(line, sizeof line)) >= 0) {
        status = tlm_state_init(model, state);
        if (status == TLM_OK)
            status = tlm_step(context, state, tlm_start_token(model));
        if (status == TLM_OK)
            status = read_line(context, model, state, line, (size_t)size);
        if (status == TLM_OK)
            status = tlm_top(context, state, NULL, 0, &unknown, 1, 3, best, &found);
        if (status != TLM_OK)
            break;
        put(line, (size_t)size);
        put_text("\n");
        for (uint32_t i = 0; i < found; i++)
            put_choice(model, best[i]);
    }
    if (status != TLM_OK) {
        put_text(tlm_error_text(status));
        put_text("\n");
    }
    return (int)status;
}
