/* What the tools share. */
#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 4096, MESSAGE = 512 };

static void complain(const char *format, va_list values)
{
    fflush(stdout);
    fprintf(stderr, "%s: ", tool_name);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
}

void misused(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    complain(format, values);
    va_end(values);
    exit(EXIT_USAGE);
}

void failed(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    complain(format, values);
    va_end(values);
    exit(EXIT_OTHER);
}

void *take(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL)
        failed("no memory for %zu times %zu bytes; try a smaller --batch", count, size);
    return memory;
}

void append(text *t, const char *bytes, size_t size)
{
    if (t->room - t->size < size) {
        size_t room = t->room ? t->room : FIRST_ROOM;
        while (room < SIZE_MAX / 2 && room - t->size < size)
            room *= 2;
        char *grown = room - t->size < size ? NULL : realloc(t->bytes, room);
        if (grown == NULL)
            failed("no memory for a line of more than %zu bytes", t->size);
        t->bytes = grown;
        t->room = room;
    }
    if (size)
        memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
}

/* fgets would lose count where a line holds zeros. */
bool read_line(FILE *file, const char *where, text *line)
{
    char some[FIRST_ROOM];
    size_t count = 0;
    int c;
    line->size = 0;
    while ((c = getc(file)) != EOF) {
        some[count++] = (char)c;
        if (c == '\n' || count == sizeof some) {
            append(line, some, count);
            count = 0;
        }
        if (c == '\n')
            return true;
    }
    append(line, some, count);
    if (ferror(file))
        failed("%s cannot be read: %s", where, strerror(errno));
    return line->size != 0;
}

FILE *open_text(const char *path, const char **name)
{
    if (path == NULL || strcmp(path, "-") == 0) {
        *name = "stdin";
        return stdin;
    }
    *name = path;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        failed("%s cannot be read: %s; give a text file, or - for stdin", path, strerror(errno));
    return file;
}

void finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        failed("the output cannot be written: %s", strerror(errno));
}

const char *next_argument(arguments *a, bool *option)
{
    if (a->next >= a->count)
        return NULL;
    const char *argument = a->all[a->next++];
    if (!a->no_options && strcmp(argument, "--") == 0) {
        a->no_options = true;
        return next_argument(a, option);
    }
    *option = !a->no_options && argument[0] == '-' && argument[1] != '\0';
    return argument;
}

bool is_option(const char *argument, const char *name)
{
    const size_t size = strlen(name);
    const bool is_long = name[0] == '-' && name[1] == '-';
    return strncmp(argument, name, size) == 0 &&
           (argument[size] == '\0' || (is_long && argument[size] == '='));
}

const char *value_of(arguments *a, const char *option)
{
    const char *equals = strncmp(option, "--", 2) == 0 ? strchr(option, '=') : NULL;
    if (equals != NULL)
        return equals + 1;
    if (a->next >= a->count)
        misused("%s needs a value; see %s --help", option, tool_name);
    return a->all[a->next++];
}

uint32_t number_of(arguments *a, const char *option, uint32_t least, uint32_t most)
{
    const char *value = value_of(a, option);
    char *end = NULL;
    errno = 0;
    const unsigned long long number = strtoull(value, &end, 10);
    /* strtoull takes signs and spaces. */
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || number < least ||
        number > most)
        misused("%s is %s; give a whole number from %u to %u", option, value, (unsigned)least,
                (unsigned)most);
    return (uint32_t)number;
}

bool take_engine_option(arguments *a, const char *option, tlm_options *options)
{
    if (is_option(option, "--threads"))
        options->threads = number_of(a, option, 1, 256);
    else if (is_option(option, "--batch"))
        options->batch = number_of(a, option, 1, 4096);
    else if (is_option(option, "--kernels"))
        options->kernels = value_of(a, option);
    else if (is_option(option, "--preview"))
        options->preview = number_of(a, option, 2, 4);
    else if (is_option(option, "--preview-fast"))
        options->preview_mode = TLM_PREVIEW_FAST;
    else
        return false;
    return true;
}

tlm_model *open_model(const char *path)
{
    char message[MESSAGE];
    tlm_model *model = NULL;
    const tlm_status status = tlm_open_file(path, &model, message, sizeof message);
    if (status == TLM_ERROR_READ) /* says the path itself */
        failed("%s; give a model file that terselm wrote", message);
    if (status != TLM_OK)
        failed("%s: %s (%s); give a whole model file that terselm wrote", path, message,
               tlm_error_text(status));
    return model;
}

tlm_context *open_context(const tlm_model *model, const tlm_options *options)
{
    static const char *const NAMES[] = {"avx512vnni", "avx2", "neondot", "neon", "wasm",
                                        "portable"};
    if (options->kernels != NULL && !tlm_can_run(options->kernels)) {
        text can = {0};
        for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
            if (tlm_can_run(NAMES[i])) {
                append(&can, can.size ? ", " : "", can.size ? 2 : 0);
                append(&can, NAMES[i], strlen(NAMES[i]));
            }
        append(&can, "", 1);
        misused("--kernels is %s, which this machine cannot run; it can run %s", options->kernels,
                can.bytes);
    }
    tlm_context *context = NULL;
    const tlm_status status = tlm_context_open(model, options, &context);
    if (status == TLM_ERROR_MEMORY)
        failed("no memory to compute in, or no threads; try a smaller --batch or --threads 1");
    if (status == TLM_ERROR_ARGUMENT && options->preview_mode != TLM_PREVIEW_EXACT &&
        options->preview == 0)
        misused("--preview-fast needs --preview 2, 3 or 4");
    if (status == TLM_ERROR_ARGUMENT && options->preview != 0)
        failed("this output layer can have no preview: it is adaptive, a tensor train, or made of "
               "blocks that are made of others; leave out --preview");
    must(status, "the options");
    return context;
}

void note_preview(const tlm_context *context, const tlm_options *options)
{
    if (options->preview == 0 || tlm_context_preview(context) != 0)
        return;
    fflush(stdout);
    fprintf(stderr,
            "%s: no preview of %u bits: it would save less than a quarter of the output layer's "
            "bytes, so the whole of it is read\n",
            tool_name, (unsigned)options->preview);
}

void *new_state(const tlm_model *model)
{
    void *state = take(1, tlm_state_size(model));
    must(tlm_state_init(model, state), "the state");
    return state;
}

void must(tlm_status status, const char *what)
{
    if (status != TLM_OK)
        failed("%s: %s", what, tlm_error_text(status));
}
