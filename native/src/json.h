/* JSON over a range of bytes: checked once as a whole, then walked without copies. */
#ifndef TLM_JSON_H
#define TLM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLM_JSON_DEPTH 32u

typedef enum tlm_json_fault {
    TLM_JSON_OK,
    TLM_JSON_SYNTAX,
    TLM_JSON_TOO_DEEP,
    TLM_JSON_BAD_TEXT,  /* not UTF-8, or half of a surrogate pair */
    TLM_JSON_NUL,       /* a NUL byte, or \u0000 */
    TLM_JSON_TOO_LARGE  /* a number that no float64 holds */
} tlm_json_fault;

/* One value of checked text, without white space around it; {NULL, NULL} where there is none. */
typedef struct tlm_json {
    const char *begin;
    const char *end;
} tlm_json;

/* Where a walk through an object or an array stands. */
typedef struct tlm_json_walk {
    const char *at;
    bool object;
} tlm_json_walk;

typedef enum tlm_json_found { TLM_JSON_FOUND, TLM_JSON_MISSING, TLM_JSON_TWICE } tlm_json_found;

/* Check that the bytes are one JSON value, at most 32 deep. All calls below need a value that
 * comes from here. On a fault `where` receives its place. */
tlm_json_fault tlm_json_check(const char *text, size_t size, tlm_json *value, size_t *where);
/* What a fault means, in a few words. */
const char *tlm_json_fault_text(tlm_json_fault fault);

bool tlm_json_is_object(tlm_json value);
bool tlm_json_is_array(tlm_json value);
bool tlm_json_is_string(tlm_json value);
bool tlm_json_is_null(tlm_json value);
/* Read true or false; false where it is neither. */
bool tlm_json_boolean(tlm_json value, bool *out);
/* Read an integer written without point or exponent; false where it is none or not in int64. */
bool tlm_json_integer(tlm_json value, int64_t *out);

/* Start a walk through an object or array; a walk through anything else is empty. */
tlm_json_walk tlm_json_walk_of(tlm_json value);
/* Take the next member (key and value) or item (key is empty); false at the end. */
bool tlm_json_next(tlm_json_walk *walk, tlm_json *key, tlm_json *value);
/* The number of members or items. */
size_t tlm_json_count(tlm_json value);
/* Find the only member of an object with this key. `value` is empty where there is not one. */
tlm_json_found tlm_json_find(tlm_json object, const char *key, tlm_json *value);

/* Write the bytes of a string without a final NUL and return how many there are; they are never
 * more than the string takes in the text. `out` may be NULL. */
size_t tlm_json_decode(tlm_json string, char *out);
/* Whether the value is a string of exactly these bytes. */
bool tlm_json_equals(tlm_json value, const char *text);

#endif
