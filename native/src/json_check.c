/* The check of JSON text as a whole. */
#include "json.h"

#include <string.h>

#define MAX_DECIMAL_EXPONENT 308

typedef struct scanner {
    const unsigned char *at;
    const unsigned char *end;
} scanner;

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(unsigned char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Read the four digits of \uXXXX; -1 where they are none. */
static int32_t hex_unit(scanner *s)
{
    int32_t unit = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        int digit = s->at < s->end ? hex_value(*s->at) : -1;
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

static tlm_json_fault check_escape(scanner *s)
{
    s->at++;
    if (s->at == s->end) {
        return TLM_JSON_SYNTAX;
    }
    if (*s->at != 'u') {
        if (*s->at == 0 || strchr("\"\\/bfnrt", *s->at) == NULL) {
            return TLM_JSON_SYNTAX;
        }
        s->at++;
        return TLM_JSON_OK;
    }
    s->at++;
    int32_t unit = hex_unit(s);
    if (unit < 0) {
        return TLM_JSON_SYNTAX;
    }
    if (unit == 0) {
        return TLM_JSON_NUL;
    }
    if (unit < 0xd800 || unit > 0xdfff) {
        return TLM_JSON_OK;
    }
    if (unit > 0xdbff || s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u') {
        return TLM_JSON_BAD_TEXT;
    }
    s->at += 2;
    int32_t low = hex_unit(s);
    return low >= 0xdc00 && low <= 0xdfff ? TLM_JSON_OK : TLM_JSON_BAD_TEXT;
}

/* Check one character of more than one byte: no overlong form, no surrogate, none past U+10FFFF. */
static tlm_json_fault check_utf8(scanner *s)
{
    unsigned char lead = *s->at;
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || s->end - s->at <= more) {
        return TLM_JSON_BAD_TEXT;
    }
    unsigned char first = s->at[1];
    if ((lead == 0xe0 && first < 0xa0) || (lead == 0xed && first > 0x9f) ||
        (lead == 0xf0 && first < 0x90) || (lead == 0xf4 && first > 0x8f)) {
        return TLM_JSON_BAD_TEXT;
    }
    for (int i = 1; i <= more; i++) {
        if ((s->at[i] & 0xc0) != 0x80) {
            return TLM_JSON_BAD_TEXT;
        }
    }
    s->at += more + 1;
    return TLM_JSON_OK;
}

static tlm_json_fault check_string(scanner *s)
{
    s->at++;
    while (s->at < s->end) {
        unsigned char c = *s->at;
        tlm_json_fault fault = TLM_JSON_OK;
        if (c == '"') {
            s->at++;
            return TLM_JSON_OK;
        }
        if (c == '\\') {
            fault = check_escape(s);
        } else if (c >= 0x80) {
            fault = check_utf8(s);
        } else if (c < 0x20) {
            return c == 0 ? TLM_JSON_NUL : TLM_JSON_SYNTAX;
        } else {
            s->at++;
        }
        if (fault != TLM_JSON_OK) {
            return fault;
        }
    }
    return TLM_JSON_SYNTAX;
}

static ptrdiff_t skip_digits(scanner *s)
{
    const unsigned char *start = s->at;
    while (s->at < s->end && is_digit(*s->at)) {
        s->at++;
    }
    return s->at - start;
}

/* Return the exponent after e or E, held to ±10^6; sets `fault` where there is none. */
static long check_exponent(scanner *s, tlm_json_fault *fault)
{
    bool negative = false;
    s->at++;
    if (s->at < s->end && (*s->at == '+' || *s->at == '-')) {
        negative = *s->at == '-';
        s->at++;
    }
    const unsigned char *digits = s->at;
    if (skip_digits(s) == 0) {
        *fault = TLM_JSON_SYNTAX;
    }
    long exponent = 0;
    for (; digits < s->at && exponent < 1000000; digits++) {
        exponent = exponent * 10 + (*digits - '0');
    }
    return negative ? -exponent : exponent;
}

static tlm_json_fault check_number(scanner *s)
{
    tlm_json_fault fault = TLM_JSON_OK;
    if (*s->at == '-') {
        s->at++;
    }
    const unsigned char *whole = s->at;
    ptrdiff_t magnitude = skip_digits(s);
    if (magnitude == 0 || (magnitude > 1 && *whole == '0')) {
        return TLM_JSON_SYNTAX;
    }
    bool zero = *whole == '0';
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        const unsigned char *fraction = s->at;
        if (skip_digits(s) == 0) {
            return TLM_JSON_SYNTAX;
        }
        for (; zero && fraction < s->at; fraction++) {
            zero = *fraction == '0';
            magnitude -= zero;
        }
    }
    long exponent = 0;
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        exponent = check_exponent(s, &fault);
    }
    if (fault == TLM_JSON_OK && !zero && magnitude + exponent > MAX_DECIMAL_EXPONENT + 1) {
        fault = TLM_JSON_TOO_LARGE;
    }
    return fault;
}

static tlm_json_fault check_word(scanner *s, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(s->end - s->at) < size || memcmp(s->at, word, size) != 0) {
        return TLM_JSON_SYNTAX;
    }
    s->at += size;
    return TLM_JSON_OK;
}

static tlm_json_fault check_scalar(scanner *s)
{
    switch (*s->at) {
    case 0:
        return TLM_JSON_NUL;
    case '"':
        return check_string(s);
    case 't':
        return check_word(s, "true");
    case 'f':
        return check_word(s, "false");
    case 'n':
        return check_word(s, "null");
    default:
        return *s->at == '-' || is_digit(*s->at) ? check_number(s) : TLM_JSON_SYNTAX;
    }
}

static void skip_space(scanner *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) {
        s->at++;
    }
}

/* Check a key and the colon after it. */
static tlm_json_fault check_key(scanner *s)
{
    if (*s->at != '"') {
        return *s->at == 0 ? TLM_JSON_NUL : TLM_JSON_SYNTAX;
    }
    tlm_json_fault fault = check_string(s);
    skip_space(s);
    if (fault == TLM_JSON_OK && (s->at == s->end || *s->at != ':')) {
        return TLM_JSON_SYNTAX;
    }
    s->at += fault == TLM_JSON_OK;
    return fault;
}

/* Check everything. `closers` holds what closes each open object or array. */
static tlm_json_fault check_all(scanner *s)
{
    unsigned char closers[TLM_JSON_DEPTH];
    unsigned depth = 0;
    bool fresh = false;      /* just opened: may close at once */
    bool want_value = true;  /* else a comma, a closer, or the end */
    for (;;) {
        skip_space(s);
        if (s->at == s->end) {
            return depth == 0 && !want_value ? TLM_JSON_OK : TLM_JSON_SYNTAX;
        }
        unsigned char c = *s->at;
        if (depth > 0 && c == closers[depth - 1] && (fresh || !want_value)) {
            s->at++;
            depth--;
            fresh = want_value = false;
            continue;
        }
        if (!want_value) {
            if (depth == 0 || c != ',') {
                return c == 0 ? TLM_JSON_NUL : TLM_JSON_SYNTAX;
            }
            s->at++;
            want_value = true;
            continue;
        }
        tlm_json_fault fault = TLM_JSON_OK;
        if (depth > 0 && closers[depth - 1] == '}') {
            fault = check_key(s);
            skip_space(s);
            if (fault == TLM_JSON_OK && s->at == s->end) {
                fault = TLM_JSON_SYNTAX;
            }
        }
        fresh = want_value = false;
        if (fault == TLM_JSON_OK && (*s->at == '{' || *s->at == '[')) {
            if (depth == TLM_JSON_DEPTH) {
                return TLM_JSON_TOO_DEEP;
            }
            closers[depth++] = *s->at == '{' ? '}' : ']';
            s->at++;
            fresh = want_value = true;
        } else if (fault == TLM_JSON_OK) {
            fault = check_scalar(s);
        }
        if (fault != TLM_JSON_OK) {
            return fault;
        }
    }
}

tlm_json_fault tlm_json_check(const char *text, size_t size, tlm_json *value, size_t *where)
{
    const unsigned char *start = (const unsigned char *)text;
    scanner s = {start, start + size};
    tlm_json_fault fault = check_all(&s);
    *where = (size_t)(s.at - start);
    value->begin = value->end = NULL;
    if (fault == TLM_JSON_OK) {
        scanner inner = {start, start + size};
        skip_space(&inner);
        while (strchr(" \t\n\r", inner.end[-1]) != NULL) {
            inner.end--;
        }
        value->begin = (const char *)inner.at;
        value->end = (const char *)inner.end;
    }
    return fault;
}

const char *tlm_json_fault_text(tlm_json_fault fault)
{
    switch (fault) {
    case TLM_JSON_OK:
        return "no fault";
    case TLM_JSON_SYNTAX:
        return "not JSON";
    case TLM_JSON_TOO_DEEP:
        return "more than 32 levels deep";
    case TLM_JSON_BAD_TEXT:
        return "not UTF-8";
    case TLM_JSON_NUL:
        return "a NUL byte";
    case TLM_JSON_TOO_LARGE:
        return "a number that is too large";
    }
    return "unknown fault";
}
