/* tlm-run: predict, score and describe with a model file, from the command line. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { WAITING = 4096, MOST_CHOICES = 1000000 };

const char *tool_name = "tlm-run";

static const char HELP[] =
    "tlm-run: run a model file\n"
    "\n"
    "  tlm-run predict MODEL [-k N] [--prefix P] [TEXT ...]   what comes next after a text\n"
    "  tlm-run score MODEL [FILE]                             each line of a text by itself\n"
    "  tlm-run perplexity MODEL [FILE]                        a text as one stream\n"
    "  tlm-run describe MODEL                                 what the file holds\n"
    "\n"
    "Without TEXT or FILE, or with -, they read stdin. `score` prints the natural logarithm of the\n"
    "probability of a line, its tokens (the line end is one) and its perplexity.\n"
    "\n"
    "  -k N             words to print, 5\n"
    "  --prefix P       only words that begin with P\n"
    "  --threads N      threads that share large products, 1\n"
    "  --batch N        tokens that the output layer reads at once, 64\n"
    "  --kernels NAME   portable, avx2, avx512vnni, neon, neondot; the fastest that can run\n"
    "  --preview BITS   predict: 2, 3 or 4 bits of the output layer choose the words to score\n"
    "  --preview-fast   with --preview: fewer of them, which may miss one\n"
    "\n"
    "Examples:\n"
    "  tlm-run predict small.safetensors \"the company said\" -k 3\n"
    "  tlm-run predict small.safetensors --prefix th \"one of\"\n"
    "  echo \"the company said\" | tlm-run score small.safetensors\n"
    "  tlm-run perplexity small.safetensors ptb.test.txt --threads 2\n";

typedef struct request {
    const char *verb;
    const char *model;
    const char *prefix;
    uint32_t k;
    tlm_options engine;
    text words; /* TEXT, joined by spaces */
    int rest;   /* arguments after MODEL */
} request;

/* A model that is in use, and where its text is. */
typedef struct session {
    tlm_model *model;
    tlm_context *context;
    void *state;
    uint32_t *tokens;
    size_t room;
    size_t count;
} session;

static void open_session(session *s, const request *r)
{
    s->model = open_model(r->model);
    s->context = open_context(s->model, &r->engine);
    note_preview(s->context, &r->engine);
    s->state = new_state(s->model);
}

static void close_session(session *s)
{
    free(s->tokens);
    free(s->state);
    tlm_context_close(s->context);
    tlm_close(s->model);
}

/* The state at the start of a text. */
static void begin_text(session *s)
{
    must(tlm_state_init(s->model, s->state), "the state");
    must(tlm_step(s->context, s->state, tlm_start_token(s->model)), "the start of a text");
}

/* Add the tokens of a text to those that wait. No token is shorter than a byte. */
static void add_tokens(session *s, const char *bytes, size_t size, const char *where,
                       unsigned long long line)
{
    if (s->room - s->count < size) {
        const size_t room = s->count + size + WAITING;
        uint32_t *grown = room > SIZE_MAX / sizeof *grown
                              ? NULL
                              : realloc(s->tokens, room * sizeof *grown);
        if (grown == NULL)
            failed("%s: line %llu: no memory for %zu tokens; cut the line", where, line, room);
        s->tokens = grown;
        s->room = room;
    }
    size_t count = 0;
    if (size && tlm_tokenize(s->model, bytes, size, s->tokens + s->count, s->room - s->count,
                             &count) != TLM_OK) {
        if (tlm_unknown_token(s->model) == TLM_NO_TOKEN)
            failed("%s: line %llu is not UTF-8, or holds what the vocabulary has no token for; "
                   "convert it, or leave that out",
                   where, line);
        failed("%s: line %llu is not UTF-8; convert the text to UTF-8", where, line);
    }
    s->count += count;
}

/* Read the next line as the Python package does: no byte order mark, no carriage return before
   the newline, and a line end also after a last line without one. */
static bool next_line(FILE *file, const char *where, text *line, unsigned long long *number)
{
    if (!read_line(file, where, line))
        return false;
    ++*number;
    if (line->bytes[line->size - 1] == '\n')
        line->size--;
    if (line->size && line->bytes[line->size - 1] == '\r')
        line->size--;
    append(line, "\n", 1);
    if (*number == 1 && line->size > 3 && memcmp(line->bytes, "\xef\xbb\xbf", 3) == 0)
        memmove(line->bytes, line->bytes + 3, line->size -= 3);
    return true;
}

/* Bytes of the UTF-8 character at the start; 0 where there is none. */
static uint32_t character_size(const char *bytes, uint32_t size)
{
    const unsigned char c = (unsigned char)bytes[0];
    const uint32_t all = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    for (uint32_t i = 1; i < all; i++)
        if (i >= size || ((unsigned char)bytes[i] & 0xc0) != 0x80)
            return 0;
    return all;
}

/* Make the text of a token visible: a space is an open box, and byte-pair tokens may be parts of
   characters. Returns the columns it takes. */
static int make_visible(const char *bytes, uint32_t size, text *out)
{
    int columns = 0;
    out->size = 0;
    for (uint32_t at = 0; at < size;) {
        const uint32_t length = character_size(bytes + at, size - at);
        const unsigned char c = (unsigned char)bytes[at];
        char escaped[8];
        if (c == ' ') {
            append(out, "\xe2\x90\xa3", 3);
            columns++;
        } else if (length == 0 || c < 0x20 || c == 0x7f) {
            const int n = c == '\n' ? snprintf(escaped, sizeof escaped, "\\n")
                                    : snprintf(escaped, sizeof escaped, "\\x%02x", c);
            append(out, escaped, (size_t)n);
            columns += n;
        } else {
            append(out, bytes + at, length);
            columns++;
        }
        at += length ? length : 1;
    }
    append(out, "", 1);
    return columns;
}

static void print_choices(const tlm_model *model, const tlm_choice *choices, uint32_t found)
{
    char word[TLM_MAX_TOKEN_BYTES];
    text visible = {0};
    uint32_t size;
    int widest = 4, digits = 1;
    for (uint32_t i = found; i >= 10; i /= 10)
        digits++;
    for (uint32_t i = 0; i < found; i++) {
        must(tlm_token_text(model, choices[i].token, word, &size), "a token");
        const int columns = make_visible(word, size, &visible);
        widest = columns > widest ? columns : widest;
    }
    printf("%*s  %-*s  probability\n", digits, "#", widest, "word");
    for (uint32_t i = 0; i < found; i++) {
        must(tlm_token_text(model, choices[i].token, word, &size), "a token");
        const int columns = make_visible(word, size, &visible);
        printf("%*u  %s%*s  %9.4f %%\n", digits, (unsigned)i + 1, visible.bytes, widest - columns,
               "", 100 * exp((double)choices[i].log_probability));
    }
    free(visible.bytes);
}

static void predict(session *s, request *r)
{
    const char *where = "TEXT";
    if (r->rest == 0 || (r->rest == 1 && r->words.size == 1 && r->words.bytes[0] == '-')) {
        text line = {0};
        FILE *file = open_text(NULL, &where);
        r->words.size = 0;
        for (unsigned long long number = 0; next_line(file, where, &line, &number);)
            append(&r->words, line.bytes, line.size);
        if (r->words.size)
            r->words.size--; /* the text goes on where its last line ends */
        free(line.bytes);
    }
    begin_text(s);
    add_tokens(s, r->words.bytes, r->words.size, where, 1);
    for (size_t i = 0; i < s->count; i++)
        must(tlm_step(s->context, s->state, s->tokens[i]), "a token");
    tlm_description about;
    must(tlm_describe(s->model, &about), "the model");
    const uint32_t k = r->k < about.vocabulary_size ? r->k : about.vocabulary_size;
    tlm_choice *choices = take(k, sizeof *choices);
    const uint32_t unknown = tlm_unknown_token(s->model);
    uint32_t found = 0;
    must(tlm_top(s->context, s->state, r->prefix, strlen(r->prefix), &unknown,
                 unknown != TLM_NO_TOKEN, k, choices, &found),
         "the prediction");
    if (found == 0)
        failed("no word of the vocabulary begins with \"%s\"; try a shorter --prefix", r->prefix);
    print_choices(s->model, choices, found);
    free(choices);
}

static void score(session *s, const char *path)
{
    const char *where;
    FILE *file = open_text(path, &where);
    text line = {0};
    printf("%14s  %8s  %12s\n", "ln probability", "tokens", "perplexity");
    for (unsigned long long number = 0; next_line(file, where, &line, &number);) {
        double total = 0;
        s->count = 0;
        add_tokens(s, line.bytes, line.size, where, number);
        begin_text(s);
        must(tlm_score_sequence(s->context, s->state, s->tokens, s->count, NULL, &total), "a line");
        printf("%14.4f  %8zu  %12.4f\n", total, s->count, exp(-total / (double)s->count));
    }
    free(line.bytes);
    if (file != stdin)
        fclose(file);
}

/* Score what waits; returns the nats. */
static double score_waiting(session *s)
{
    double total = 0;
    must(tlm_score_sequence(s->context, s->state, s->tokens, s->count, NULL, &total), "the text");
    s->count = 0;
    return -total;
}

static void perplexity(session *s, const char *path)
{
    const char *where;
    FILE *file = open_text(path, &where);
    text line = {0};
    double nats = 0;
    unsigned long long tokens = 0, unknown = 0, number = 0;
    begin_text(s);
    while (next_line(file, where, &line, &number)) {
        const size_t before = s->count;
        add_tokens(s, line.bytes, line.size, where, number);
        tokens += s->count - before;
        for (size_t i = before; i < s->count; i++)
            unknown += s->tokens[i] == tlm_unknown_token(s->model);
        if (s->count >= WAITING)
            nats += score_waiting(s);
    }
    if (tokens == 0)
        failed("%s is empty; a perplexity needs a text", where);
    nats += score_waiting(s);
    printf("perplexity  %.4f\ntokens      %llu\nunknown     %llu\n", exp(nats / (double)tokens),
           tokens, unknown);
    free(line.bytes);
    if (file != stdin)
        fclose(file);
}

static void describe(const session *s)
{
    tlm_description d;
    must(tlm_describe(s->model, &d), "the model");
    printf("file             %llu bytes, format %u\n", (unsigned long long)d.file_bytes,
           (unsigned)d.format);
    printf("cell             %s\nhidden           ", d.cell);
    for (uint32_t i = 0; i < d.layers; i++)
        printf("%s%u", i ? ", " : "", (unsigned)d.hidden[i]);
    if (d.projection)
        printf("\nprojection       %u", (unsigned)d.projection);
    printf("\nembedding        %u%s\n", (unsigned)d.embedding, d.tied ? ", tied to the output" : "");
    printf("output           %s\n", d.output);
    printf("vocabulary       %u %s\n", (unsigned)d.vocabulary_size,
           strcmp(d.vocabulary_kind, "bpe") == 0 ? "byte pairs" : d.vocabulary_kind);
    printf("matrices         %u\n", (unsigned)d.matrices);
    printf("state            %zu bytes, saved %zu\n", tlm_state_size(s->model),
           tlm_state_saved_size(s->model));
    printf("working memory   %zu bytes\nkernels          %s\n", tlm_context_bytes(s->context),
           tlm_context_kernels(s->context));
}

/* Whether there is such a verb, and how many arguments it takes after MODEL; -1: any. */
static bool find_verb(const char *name, int *most)
{
    static const struct {
        const char *name;
        int most;
    } VERBS[] = {{"predict", -1}, {"score", 1}, {"perplexity", 1}, {"describe", 0}};
    for (size_t i = 0; i < sizeof VERBS / sizeof *VERBS; i++)
        if (strcmp(VERBS[i].name, name) == 0) {
            *most = VERBS[i].most;
            return true;
        }
    return false;
}

static void read_arguments(request *r, arguments *a, const char **file)
{
    const char *argument;
    bool option = false;
    int most = 0;
    while ((argument = next_argument(a, &option)) != NULL) {
        if (option && (is_option(argument, "--help") || is_option(argument, "-h"))) {
            fputs(HELP, stdout);
            finish_output();
            exit(0);
        }
        if (option && is_option(argument, "-k")) {
            r->k = number_of(a, argument, 1, MOST_CHOICES);
        } else if (option && is_option(argument, "--prefix")) {
            r->prefix = value_of(a, argument);
        } else if (option) {
            if (!take_engine_option(a, argument, &r->engine))
                misused("there is no option %s; see tlm-run --help", argument);
        } else if (r->verb == NULL) {
            r->verb = argument;
            if (!find_verb(argument, &most))
                misused("there is no verb %s; the verbs are predict, score, perplexity, describe",
                        argument);
        } else if (r->model == NULL) {
            r->model = argument;
        } else {
            if (most >= 0 && r->rest == most)
                misused("%s is one argument too many for %s; see tlm-run --help", argument,
                        r->verb);
            append(&r->words, " ", r->rest != 0);
            append(&r->words, argument, strlen(argument));
            *file = argument;
            r->rest++;
        }
    }
    if (r->verb == NULL)
        misused("a verb is missing: predict, score, perplexity or describe; see tlm-run --help");
    if (r->model == NULL)
        misused("%s needs a model file; see tlm-run --help", r->verb);
}

int main(int count, char **all)
{
    request r = {.prefix = "", .k = 5, .engine = {.batch = 64}};
    arguments a = {.all = all, .count = count, .next = 1};
    const char *file = NULL;
    session s = {0};
    read_arguments(&r, &a, &file);
    const bool sequences = strcmp(r.verb, "score") == 0 || strcmp(r.verb, "perplexity") == 0;
    if (!sequences)
        r.engine.batch = 1;
    if (strcmp(r.verb, "predict") != 0 && (r.engine.preview != 0 || r.engine.preview_mode != TLM_PREVIEW_EXACT))
        misused("--preview is for predict; leave it out with %s", r.verb);
    open_session(&s, &r);
    if (strcmp(r.verb, "predict") == 0)
        predict(&s, &r);
    else if (strcmp(r.verb, "score") == 0)
        score(&s, file);
    else if (strcmp(r.verb, "perplexity") == 0)
        perplexity(&s, file);
    else
        describe(&s);
    finish_output();
    close_session(&s);
    free(r.words.bytes);
    return 0;
}
