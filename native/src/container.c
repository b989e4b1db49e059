#include "container.h"

#include <limits.h>

#include "sha256.h"
#include "tensor_order.h"

#define LENGTH_BYTES 8u
#define DIGEST_DIGITS 64

static const struct {
    char name[5];
    uint8_t size;
} TYPES[] = {
    [TLM_BOOL] = {"BOOL", 1}, [TLM_U8] = {"U8", 1},   [TLM_I8] = {"I8", 1},
    [TLM_U16] = {"U16", 2},   [TLM_I16] = {"I16", 2}, [TLM_F16] = {"F16", 2},
    [TLM_BF16] = {"BF16", 2}, [TLM_U32] = {"U32", 4}, [TLM_I32] = {"I32", 4},
    [TLM_F32] = {"F32", 4},   [TLM_U64] = {"U64", 8}, [TLM_I64] = {"I64", 8},
    [TLM_F64] = {"F64", 8},
};

uint32_t tlm_type_size(tlm_type type)
{
    return TYPES[type].size;
}

const char *tlm_type_name(tlm_type type)
{
    return TYPES[type].name;
}

/* The bytes of a string as they are in the header, for a message. */
static int shown_size(tlm_json text)
{
    ptrdiff_t size = text.end - text.begin;
    return size > 80 ? 80 : (int)size;
}

static tlm_status damaged(const tlm_fault *fault, tlm_json name, const char *what)
{
    return tlm_fail(fault, TLM_ERROR_DAMAGED, "tensor %.*s: %s", shown_size(name), name.begin,
                    what);
}

static bool read_type(tlm_json value, tlm_type *out)
{
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        if (tlm_json_equals(value, TYPES[i].name)) {
            *out = (tlm_type)i;
            return true;
        }
    }
    return false;
}

/* Read the shape and return the bytes it takes; UINT64_MAX where it is impossible. */
static uint64_t read_shape(tlm_json value, tlm_tensor *tensor)
{
    if (!tlm_json_is_array(value)) {
        return UINT64_MAX;
    }
    tlm_json_walk walk = tlm_json_walk_of(value);
    tlm_json key, item;
    uint64_t bytes = tlm_type_size(tensor->type);
    tensor->rank = 0;
    while (tlm_json_next(&walk, &key, &item)) {
        int64_t size;
        if (tensor->rank == TLM_MAX_RANK || !tlm_json_integer(item, &size) || size < 0) {
            return UINT64_MAX;
        }
        if (size != 0 && bytes > (uint64_t)INT64_MAX / (uint64_t)size) {
            return UINT64_MAX;
        }
        tensor->shape[tensor->rank++] = (uint64_t)size;
        bytes *= (uint64_t)size;
    }
    return bytes;
}

static bool read_offsets(tlm_json value, uint64_t data_size, tlm_tensor *tensor)
{
    tlm_json_walk walk = tlm_json_walk_of(value);
    tlm_json key, first, second, third;
    int64_t begin, end;
    if (!tlm_json_is_array(value) || !tlm_json_next(&walk, &key, &first) ||
        !tlm_json_next(&walk, &key, &second) || tlm_json_next(&walk, &key, &third) ||
        !tlm_json_integer(first, &begin) || !tlm_json_integer(second, &end)) {
        return false;
    }
    tensor->begin = (uint64_t)begin;
    tensor->end = (uint64_t)end;
    return begin >= 0 && begin <= end && tensor->end <= data_size;
}

static bool is_filler(tlm_json name)
{
    return name.end - name.begin >= 6 && memcmp(name.begin + 1, "pad.", 4) == 0;
}

static tlm_status read_entry(const tlm_container *container, tlm_json name, tlm_json entry,
                             tlm_tensor *tensor, const tlm_fault *fault)
{
    tlm_json type, shape, offsets;
    if (!tlm_json_is_object(entry)) {
        return damaged(fault, name, "its entry in the header is not an object");
    }
    if (tlm_json_find(entry, "dtype", &type) != TLM_JSON_FOUND ||
        tlm_json_find(entry, "shape", &shape) != TLM_JSON_FOUND ||
        tlm_json_find(entry, "data_offsets", &offsets) != TLM_JSON_FOUND) {
        return damaged(fault, name, "dtype, shape or data_offsets is missing or there twice");
    }
    if (!read_type(type, &tensor->type)) {
        return damaged(fault, name, "dtype is unknown");
    }
    if (name.end - name.begin > INT_MAX) {
        return damaged(fault, name, "its name is too long");
    }
    uint64_t bytes = read_shape(shape, tensor);
    if (bytes == UINT64_MAX) {
        return damaged(fault, name, "shape is not up to 4 sizes that memory could hold");
    }
    if (!read_offsets(offsets, container->data_size, tensor)) {
        return damaged(fault, name, "data_offsets are not two places in the data section");
    }
    if (tensor->end - tensor->begin != bytes) {
        return damaged(fault, name, "data_offsets do not fit dtype and shape");
    }
    if (tensor->begin % TLM_ALIGNMENT != 0 && bytes > 0 && !is_filler(name)) {
        return damaged(fault, name, "data_offsets do not start at a multiple of 64");
    }
    tensor->data = container->data + tensor->begin;
    return TLM_OK;
}

static bool has_escape(tlm_json string)
{
    return memchr(string.begin, '\\', (size_t)(string.end - string.begin)) != NULL;
}

/* Bytes of tensors that a reader makes tables of: a byte, or two, of theirs become four. */
static bool makes_table(tlm_json name)
{
    static const char groups[] = ".groups\"";
    size_t size = (size_t)(name.end - name.begin);
    return tlm_json_equals(name, "output.order") || has_escape(name) ||
           (size >= sizeof groups &&
            memcmp(name.end - (sizeof groups - 1), groups, sizeof groups - 1) == 0);
}

static tlm_status measure(tlm_container *container, const tlm_fault *fault)
{
    tlm_json_walk walk = tlm_json_walk_of(container->header);
    tlm_json name, entry;
    container->arena_bytes = TLM_ARENA_STEP;
    while (tlm_json_next(&walk, &name, &entry)) {
        if (tlm_json_equals(name, "__metadata__")) {
            continue;
        }
        tlm_tensor tensor;
        tlm_status status = read_entry(container, name, entry, &tensor, fault);
        if (status != TLM_OK) {
            return status;
        }
        container->count++;
        container->arena_bytes += sizeof tensor;
        if (has_escape(name)) {
            container->arena_bytes += (size_t)(name.end - name.begin) + TLM_ARENA_STEP;
        }
        uint64_t bytes = tensor.end - tensor.begin;
        if (makes_table(name) && container->table_bytes < container->data_size) {
            container->table_bytes += bytes; /* overlaps, refused later, must not add up */
        }
    }
    return TLM_OK;
}

/* Find both strings of the metadata. */
static tlm_status read_metadata(tlm_container *container, const tlm_fault *fault)
{
    tlm_json metadata;
    tlm_json_found found = tlm_json_find(container->header, "__metadata__", &metadata);
    tlm_json_found text = tlm_json_find(metadata, "terselm", &container->document);
    if (found == TLM_JSON_TWICE || text == TLM_JSON_TWICE) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED, "__metadata__ or its terselm is there twice");
    }
    if (text == TLM_JSON_MISSING || !tlm_json_is_string(container->document)) {
        return tlm_fail(fault, TLM_ERROR_NOT_A_MODEL,
                        "not a terselm model: __metadata__ has no terselm");
    }
    tlm_json_find(metadata, "terselm.sha256", &container->digest);
    if (!tlm_json_is_string(container->digest) ||
        container->digest.end - container->digest.begin != DIGEST_DIGITS + 2) {
        return tlm_fail(fault, TLM_ERROR_CHECKSUM,
                        "terselm.sha256 is missing, there twice or not 64 digits");
    }
    return TLM_OK;
}

tlm_status tlm_container_open(tlm_container *container, const void *bytes, uint64_t size,
                              const tlm_fault *fault)
{
    const unsigned char *file = bytes;
    memset(container, 0, sizeof *container);
    if (size < LENGTH_BYTES) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED, "cut off: %u bytes are no header",
                        (unsigned)size);
    }
    uint64_t length = 0;
    for (unsigned i = LENGTH_BYTES; i > 0; i--) {
        length = length << 8 | file[i - 1];
    }
    if (file[0] == 'P' && file[1] == 'K') {
        return tlm_fail(fault, TLM_ERROR_NOT_A_MODEL, "a zip archive, not a safetensors file");
    }
    if (length > size - LENGTH_BYTES) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED, "cut off: header length %lu is beyond the file",
                        tlm_shown_number(length));
    }
    if (length > TLM_MAX_HEADER) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED, "header length %lu is over 16 MiB",
                        tlm_shown_number(length));
    }
    container->bytes = file;
    container->size = size;
    container->data = file + LENGTH_BYTES + length;
    container->data_size = size - LENGTH_BYTES - length;
    size_t where;
    tlm_json_fault bad = tlm_json_check((const char *)file + LENGTH_BYTES, (size_t)length,
                                        &container->header, &where);
    if (bad == TLM_JSON_SYNTAX || (bad == TLM_JSON_OK && !tlm_json_is_object(container->header))) {
        return tlm_fail(fault, TLM_ERROR_NOT_A_MODEL,
                        "not a safetensors file: header is not a JSON object at byte %lu",
                        tlm_shown_number(where));
    }
    if (bad != TLM_JSON_OK) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED, "header: %s at byte %lu",
                        tlm_json_fault_text(bad), tlm_shown_number(where));
    }
    tlm_status status = read_metadata(container, fault);
    if (status == TLM_OK && (LENGTH_BYTES + length) % TLM_ALIGNMENT != 0) {
        status = tlm_fail(fault, TLM_ERROR_DAMAGED,
                          "header length %lu does not end at a multiple of 64",
                          tlm_shown_number(length));
    }
    return status == TLM_OK ? measure(container, fault) : status;
}

static tlm_status refuse(const tlm_fault *fault, const tlm_tensor *tensor, const char *what)
{
    uint32_t size = tensor->name_size < 80 ? tensor->name_size : 80;
    return tlm_fail(fault, TLM_ERROR_DAMAGED, "tensor \"%.*s\": %s", (int)size, tensor->name,
                    what);
}

/* Check that tensors sorted by place cover the data section, each byte once. */
static tlm_status check_cover(const tlm_container *container, const tlm_fault *fault)
{
    uint64_t end = 0;
    for (size_t i = 0; i < container->count; i++) {
        const tlm_tensor *tensor = &container->tensors[i];
        if (tensor->begin != end) {
            return refuse(fault, tensor,
                          tensor->begin < end ? "data_offsets overlap the tensor before"
                                              : "data_offsets leave a gap before it");
        }
        end = tensor->end;
    }
    if (end != container->data_size) {
        return tlm_fail(fault, TLM_ERROR_DAMAGED,
                        "data section has %lu bytes, data_offsets end at %lu",
                        tlm_shown_number(container->data_size), tlm_shown_number(end));
    }
    return TLM_OK;
}

tlm_status tlm_container_read(tlm_container *container, tlm_arena *arena, const tlm_fault *fault)
{
    tlm_tensor *next = tlm_arena_take_passing(arena, container->count, sizeof *next);
    if (next == NULL) {
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the table of tensors");
    }
    container->tensors = next;
    tlm_json_walk walk = tlm_json_walk_of(container->header);
    tlm_json name, entry;
    while (tlm_json_next(&walk, &name, &entry)) {
        if (tlm_json_equals(name, "__metadata__")) {
            continue;
        }
        tlm_status status = read_entry(container, name, entry, next, fault);
        if (status != TLM_OK) {
            return status;
        }
        next->name = name.begin + 1;
        next->name_size = (uint32_t)(name.end - name.begin - 2);
        if (has_escape(name)) {
            char *decoded = tlm_arena_take_passing(arena, next->name_size, 1);
            if (decoded == NULL) {
                return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the names of tensors");
            }
            next->name_size = (uint32_t)tlm_json_decode(name, decoded);
            next->name = decoded;
        }
        next++;
    }
    tlm_sort_by_place(container->tensors, container->count);
    tlm_status status = check_cover(container, fault);
    if (status != TLM_OK) {
        return status;
    }
    tlm_sort_by_name(container->tensors, container->count);
    for (size_t i = 1; i < container->count; i++) {
        const tlm_tensor *before = &container->tensors[i - 1];
        if (tlm_compare_names(&container->tensors[i], before->name, before->name_size) == 0) {
            return refuse(fault, &container->tensors[i], "is there twice");
        }
    }
    return TLM_OK;
}

tlm_status tlm_container_verify(const tlm_container *container, const tlm_fault *fault)
{
    static const char blank[DIGEST_DIGITS + 1] =
        "0000000000000000000000000000000000000000000000000000000000000000";
    const unsigned char *stated = (const unsigned char *)container->digest.begin + 1;
    const unsigned char *rest = stated + DIGEST_DIGITS;
    char digits[DIGEST_DIGITS];
    tlm_sha256 sha;
    tlm_sha256_start(&sha);
    tlm_sha256_add(&sha, container->bytes, (size_t)(stated - container->bytes));
    tlm_sha256_add(&sha, blank, DIGEST_DIGITS);
    tlm_sha256_add(&sha, rest, (size_t)(container->bytes + container->size - rest));
    tlm_sha256_finish(&sha, digits);
    bool differs = memcmp(digits, stated, DIGEST_DIGITS) != 0;
#ifdef TLM_FUZZING /* only `make fuzz` defines it: a checksum would stop a fuzzer */
    differs = false;
#endif
    if (differs) {
        return tlm_fail(fault, TLM_ERROR_CHECKSUM,
                        "altered or damaged: terselm.sha256 differs; get the file again");
    }
    return TLM_OK;
}

bool tlm_container_peek(const tlm_container *container, const char *name, tlm_tensor *tensor)
{
    static const tlm_fault silent = {NULL, 0};
    tlm_json entry;
    return tlm_json_find(container->header, name, &entry) == TLM_JSON_FOUND &&
           read_entry(container, container->header, entry, tensor, &silent) == TLM_OK;
}

const tlm_tensor *tlm_container_find(const tlm_container *container, const char *name)
{
    size_t low = 0, high = container->count, size = strlen(name);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const tlm_tensor *tensor = &container->tensors[middle];
        int order = tlm_compare_names(tensor, name, size);
        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}
