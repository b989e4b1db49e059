/* What the tools share: errors in one line, checked memory, lines of text, numbers, opening. */
#ifndef TLM_TOOLS_COMMON_H
#define TLM_TOOLS_COMMON_H

#include <stdio.h>

#include "terselm.h"

#if defined(__GNUC__)
#define TOOL_PRINTF __attribute__((format(printf, 1, 2), noreturn))
#else
#define TOOL_PRINTF
#endif

enum { EXIT_OTHER = 1, EXIT_USAGE = 2 };

/* The name of the program, which begins each error. */
extern const char *tool_name;

/* Say what is wrong in one line of stderr and exit: `misused` with 2, `failed` with 1. */
TOOL_PRINTF void misused(const char *format, ...);
TOOL_PRINTF void failed(const char *format, ...);

/* Memory for `count` things of `size` bytes, zeroed; never NULL. */
void *take(size_t count, size_t size);

/* Bytes that grow. */
typedef struct text {
    char *bytes;
    size_t size;
    size_t room;
} text;

void append(text *t, const char *bytes, size_t size);
/* Read one line with its newline, however long; false at the end. `where` is for the error. */
bool read_line(FILE *file, const char *where, text *line);
/* Open a text to read: "-" is stdin. `*name` becomes what errors call it. */
FILE *open_text(const char *path, const char **name);
/* Write out what was printed; a full disk or a closed pipe is an error. */
void finish_output(void);

/* Walking over the arguments. */
typedef struct arguments {
    char **all;
    int count;
    int next;
    bool no_options; /* after -- */
} arguments;

/* The next argument; NULL at the end. `*option` says whether it is one: what begins with "-" and
   is not "-" itself. A value in the option's own argument (--name=value) is left for `value_of`. */
const char *next_argument(arguments *a, bool *option);
/* Whether an option has this name, alone or before an equals sign. */
bool is_option(const char *argument, const char *name);
/* The value of the option that came last, in its own argument or in the next one. */
const char *value_of(arguments *a, const char *option);
/* The same as a number of a range. */
uint32_t number_of(arguments *a, const char *option, uint32_t least, uint32_t most);

/* Take --threads, --kernels, --batch, --preview and --preview-fast; false for another option. */
bool take_engine_option(arguments *a, const char *option, tlm_options *options);

tlm_model *open_model(const char *path);
/* A context, or an error that names the kernels that can run. */
tlm_context *open_context(const tlm_model *model, const tlm_options *options);
/* Say on stderr that the preview that was asked for is left out, where it is. */
void note_preview(const tlm_context *context, const tlm_options *options);
void *new_state(const tlm_model *model);
/* Exit unless a call that cannot fail did not. */
void must(tlm_status status, const char *what);

#endif
