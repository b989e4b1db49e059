#include "reader.h"

#include <stdarg.h>
#include <stdio.h>

tlm_status tlm_refuse(const tlm_reader *reader, const char *format, ...)
{
    char text[384];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return tlm_fail(reader->fault, TLM_ERROR_MODEL, "%s: %s", reader->name, size < 0 ? "" : text);
}

int tlm_shown_size(tlm_json value)
{
    if (value.begin == NULL) {
        return 7;
    }
    ptrdiff_t size = value.end - value.begin;
    if (size <= 60) {
        return (int)size;
    }
    int cut = 60;
    while (cut > 0 && ((unsigned char)value.begin[cut] & 0xc0) == 0x80) {
        cut--; /* not in the middle of a character */
    }
    return cut;
}

const char *tlm_shown(tlm_json value)
{
    return value.begin == NULL ? "nothing" : value.begin;
}

tlm_status tlm_find_field(const tlm_reader *reader, tlm_json spec, const char *key,
                          tlm_json *value)
{
    if (tlm_json_find(spec, key, value) == TLM_JSON_TWICE) {
        return tlm_refuse(reader, "%s is there twice", key);
    }
    return TLM_OK;
}

tlm_status tlm_count_search(tlm_reader *reader, tlm_json description)
{
    reader->searched += (uint64_t)(description.end - description.begin);
    return reader->searched > TLM_MOST_SEARCHED
               ? tlm_refuse(reader, "the descriptions are too long for their many parts")
               : TLM_OK;
}

tlm_status tlm_read_integer(const tlm_reader *reader, tlm_json spec, const char *key,
                            int64_t least, int64_t most, uint32_t *out)
{
    tlm_json value;
    int64_t number;
    tlm_status status = tlm_find_field(reader, spec, key, &value);
    if (status != TLM_OK) {
        return status;
    }
    if (!tlm_json_integer(value, &number) || number < least || number > most) {
        return tlm_refuse(reader, "%s is %.*s, expected an integer from %ld to %ld", key,
                          tlm_shown_size(value), tlm_shown(value), (long)least,
                          (long)most);
    }
    *out = (uint32_t)number;
    return TLM_OK;
}

tlm_status tlm_read_flag(const tlm_reader *reader, tlm_json spec, const char *key,
                         const bool *fallback, bool *out)
{
    tlm_json value;
    tlm_status status = tlm_find_field(reader, spec, key, &value);
    if (status != TLM_OK) {
        return status;
    }
    if (value.begin == NULL && fallback != NULL) {
        *out = *fallback;
        return TLM_OK;
    }
    if (!tlm_json_boolean(value, out)) {
        return tlm_refuse(reader, "%s is %.*s, expected true or false", key,
                          tlm_shown_size(value), tlm_shown(value));
    }
    return TLM_OK;
}

tlm_status tlm_read_sizes(const tlm_reader *reader, tlm_json spec, const char *key, size_t least,
                          size_t most, uint32_t *out, size_t *count)
{
    return tlm_read_integers(reader, spec, key, 1, least, most, out, count);
}

tlm_status tlm_read_integers(const tlm_reader *reader, tlm_json spec, const char *key,
                             uint32_t smallest, size_t least, size_t most, uint32_t *out,
                             size_t *count)
{
    tlm_json value, name, item;
    tlm_status status = tlm_find_field(reader, spec, key, &value);
    if (status != TLM_OK) {
        return status;
    }
    tlm_json_walk walk = tlm_json_walk_of(value);
    bool good = tlm_json_is_array(value);
    *count = 0;
    while (good && tlm_json_next(&walk, &name, &item)) {
        int64_t number;
        good = *count < most && tlm_json_integer(item, &number) && number >= smallest &&
               number <= TLM_MAX_SIDE;
        if (good) {
            out[(*count)++] = (uint32_t)number;
        }
    }
    if (!good || *count < least) {
        return tlm_refuse(reader, "%s is %.*s, expected a list of %lu to %lu integers from %u", key,
                          tlm_shown_size(value), tlm_shown(value), tlm_shown_number(least),
                          tlm_shown_number(most), smallest);
    }
    return TLM_OK;
}

static const tlm_tensor *find_tensor(const tlm_reader *reader, const char *part)
{
    char name[TLM_NAME_SIZE + 32];
    int size = snprintf(name, sizeof name, "%s.%s", reader->name, part);
    return size < 0 || (size_t)size >= sizeof name ? NULL
                                                   : tlm_container_find(reader->container, name);
}

static tlm_status refuse_tensor(const tlm_reader *reader, const char *part,
                                const tlm_tensor *tensor, tlm_type type, const char *shape)
{
    if (tensor == NULL) {
        return tlm_refuse(reader, "tensor %s is missing", part);
    }
    char found[TLM_MAX_RANK * 24 + 1] = "";
    size_t used = 0;
    for (unsigned i = 0; i < tensor->rank; i++) {
        int size = snprintf(found + used, sizeof found - used, i == 0 ? "%lu" : ", %lu",
                            tlm_shown_number(tensor->shape[i]));
        used += size > 0 ? (size_t)size : 0;
    }
    return tlm_refuse(reader, "tensor %s is %s [%s], expected %s [%s]", part,
                      tlm_type_name(tensor->type), found, tlm_type_name(type), shape);
}

tlm_status tlm_read_tensor(const tlm_reader *reader, const char *part, tlm_type type,
                           uint64_t count, const void **out)
{
    const tlm_tensor *tensor = find_tensor(reader, part);
    if (tensor == NULL || tensor->type != type || tensor->rank != 1 ||
        tensor->shape[0] != count) {
        char shape[32];
        snprintf(shape, sizeof shape, "%lu", tlm_shown_number(count));
        return refuse_tensor(reader, part, tensor, type, shape);
    }
    *out = tensor->data;
    return TLM_OK;
}

tlm_status tlm_read_table(const tlm_reader *reader, const char *part, tlm_type type,
                          uint64_t rows, uint64_t columns, const void **out)
{
    const tlm_tensor *tensor = find_tensor(reader, part);
    if (tensor == NULL || tensor->type != type || tensor->rank != 2 ||
        tensor->shape[0] != rows || tensor->shape[1] != columns) {
        char shape[64];
        snprintf(shape, sizeof shape, "%lu, %lu", tlm_shown_number(rows),
                 tlm_shown_number(columns));
        return refuse_tensor(reader, part, tensor, type, shape);
    }
    *out = tensor->data;
    return TLM_OK;
}

tlm_status tlm_check_finite(const tlm_reader *reader, const char *part, tlm_type type,
                            const void *values, uint64_t count)
{
    unsigned odd = 0;
    if (type == TLM_F16) {
        const uint16_t *halves = values;
        for (uint64_t i = 0; i < count; i++) {
            odd |= (halves[i] & 0x7c00u) == 0x7c00u;
        }
    } else {
        const unsigned char *bytes = values;
        for (uint64_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, bytes + 4 * i, sizeof bits);
            odd |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    }
    return odd ? tlm_refuse(reader, "tensor %s holds NaN or infinite values", part) : TLM_OK;
}

tlm_status tlm_read_finite(const tlm_reader *reader, const char *part, tlm_type type,
                           uint64_t count, const void **out)
{
    tlm_status status = tlm_read_tensor(reader, part, type, count, out);
    return status == TLM_OK ? tlm_check_finite(reader, part, type, *out, count) : status;
}
