/* Walking through checked JSON. */
#include "json.h"

#include <string.h>

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') {
        at++;
    }
    return at;
}

static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++) {
        at += *at == '\\';
    }
    return at + 1;
}

static const char *skip_value(const char *at)
{
    if (*at == '"') {
        return skip_string(at);
    }
    if (*at != '{' && *at != '[') {
        /* Inside an object or array a scalar always ends before one of these. */
        while (strchr(",]} \t\n\r", *at) == NULL) {
            at++;
        }
        return at;
    }
    unsigned depth = 0;
    for (;;) {
        if (*at == '"') {
            at = skip_string(at);
            continue;
        }
        if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            depth--;
            if (depth == 0) {
                return at + 1;
            }
        }
        at++;
    }
}

static bool starts_with(tlm_json value, char first)
{
    return value.begin != NULL && *value.begin == first;
}

bool tlm_json_is_object(tlm_json value)
{
    return starts_with(value, '{');
}

bool tlm_json_is_array(tlm_json value)
{
    return starts_with(value, '[');
}

bool tlm_json_is_string(tlm_json value)
{
    return starts_with(value, '"');
}

bool tlm_json_is_null(tlm_json value)
{
    return starts_with(value, 'n');
}

bool tlm_json_boolean(tlm_json value, bool *out)
{
    *out = starts_with(value, 't');
    return *out || starts_with(value, 'f');
}

bool tlm_json_integer(tlm_json value, int64_t *out)
{
    if (value.begin == NULL) {
        return false;
    }
    const char *at = value.begin;
    bool negative = *at == '-';
    at += negative;
    if (at == value.end) {
        return false;
    }
    int64_t number = 0; /* below zero, where there is one more */
    for (; at < value.end; at++) {
        int digit = *at - '0';
        if (digit < 0 || digit > 9 || number < (INT64_MIN + digit) / 10) {
            return false;
        }
        number = number * 10 - digit;
    }
    if (!negative && number == INT64_MIN) {
        return false;
    }
    *out = negative ? number : -number;
    return true;
}

tlm_json_walk tlm_json_walk_of(tlm_json value)
{
    bool object = tlm_json_is_object(value);
    tlm_json_walk walk = {NULL, object};
    if (object || tlm_json_is_array(value)) {
        walk.at = value.begin + 1;
    }
    return walk;
}

bool tlm_json_next(tlm_json_walk *walk, tlm_json *key, tlm_json *value)
{
    key->begin = key->end = value->begin = value->end = NULL;
    if (walk->at == NULL) {
        return false;
    }
    const char *at = skip_space(walk->at);
    if (*at == ',') {
        at = skip_space(at + 1);
    }
    if (*at == '}' || *at == ']') {
        walk->at = NULL;
        return false;
    }
    if (walk->object) {
        key->begin = at;
        key->end = at = skip_string(at);
        at = skip_space(skip_space(at) + 1);
    }
    value->begin = at;
    value->end = walk->at = skip_value(at);
    return true;
}

size_t tlm_json_count(tlm_json value)
{
    tlm_json_walk walk = tlm_json_walk_of(value);
    tlm_json key, item;
    size_t count = 0;
    while (tlm_json_next(&walk, &key, &item)) {
        count++;
    }
    return count;
}

tlm_json_found tlm_json_find(tlm_json object, const char *key, tlm_json *value)
{
    tlm_json_walk walk = tlm_json_walk_of(object);
    tlm_json name, member;
    value->begin = value->end = NULL;
    while (walk.object && tlm_json_next(&walk, &name, &member)) {
        if (tlm_json_equals(name, key)) {
            if (value->begin != NULL) {
                value->begin = value->end = NULL;
                return TLM_JSON_TWICE;
            }
            *value = member;
        }
    }
    return value->begin != NULL ? TLM_JSON_FOUND : TLM_JSON_MISSING;
}

static uint32_t hex_unit(const char *at)
{
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t c = (unsigned char)at[i];
        unit = unit * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return unit;
}

static size_t write_utf8(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i > 0; i--, c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3f));
    }
    out[0] = (char)((0xf00u >> size) | c);
    return size;
}

/* Decode one character or escape at `*at` to at most 4 bytes. */
static size_t decode_one(const char **at, char out[4])
{
    if (**at != '\\') {
        out[0] = *(*at)++;
        return 1;
    }
    char c = (*at)[1];
    if (c != 'u') {
        static const char names[] = "bfnrt", meanings[] = "\b\f\n\r\t";
        const char *name = strchr(names, c);
        out[0] = name == NULL ? c : meanings[name - names];
        *at += 2;
        return 1;
    }
    uint32_t unit = hex_unit(*at + 2);
    *at += 6;
    if (unit >= 0xd800 && unit <= 0xdbff) {
        unit = 0x10000 + ((unit - 0xd800) << 10) + (hex_unit(*at + 2) - 0xdc00);
        *at += 6;
    }
    return write_utf8(unit, out);
}

size_t tlm_json_decode(tlm_json string, char *out)
{
    size_t size = 0;
    for (const char *at = string.begin + 1; at < string.end - 1;) {
        char bytes[4];
        size_t count = decode_one(&at, bytes);
        if (out != NULL) {
            memcpy(out + size, bytes, count);
        }
        size += count;
    }
    return size;
}

bool tlm_json_equals(tlm_json value, const char *text)
{
    if (!tlm_json_is_string(value)) {
        return false;
    }
    size_t left = strlen(text);
    for (const char *at = value.begin + 1; at < value.end - 1;) {
        char bytes[4];
        size_t count = decode_one(&at, bytes);
        if (count > left || memcmp(text, bytes, count) != 0) {
            return false;
        }
        text += count;
        left -= count;
    }
    return left == 0;
}
