/* Opening a model in memory of the caller's, and describing it. */
#include "model.h"

#define SMALLEST_SPEC 16u /* bytes: no description of a matrix is shorter */

static const char *const VOCABULARIES[] = {
    [TLM_WORDS] = "words", [TLM_CHARACTERS] = "characters", [TLM_BYTE_PAIRS] = "bpe"};

/* Bytes of the arena behind the model: an upper bound of what its parts take. */
static uint64_t arena_size(const tlm_container *container)
{
    uint64_t document = (uint64_t)(container->document.end - container->document.begin);
    uint64_t by_text = document / SMALLEST_SPEC + 1;
    uint64_t by_tensors = (uint64_t)container->count * (TLM_MAX_FORM_DEPTH + 1);
    uint64_t matrices = by_text < by_tensors ? by_text : by_tensors;
    uint64_t entries = container->table_bytes < container->data_size ? container->table_bytes
                                                                     : container->data_size;
    return container->arena_bytes + document + TLM_ARENA_STEP +
           matrices * (sizeof(tlm_matrix) + 2 * TLM_ARENA_STEP) +
           6 * document +                            /* digits and ranks of tensor trains */
           4 * entries +                             /* places in groups, ways back of ids */
           TLM_MAX_LAYERS * sizeof(tlm_layer) + tlm_vocabulary_room(container) +
           4 * TLM_ARENA_STEP * container->count;
}

/* Decode the document into the arena and check it. */
static tlm_status read_document(tlm_model *model, tlm_arena *arena, const tlm_fault *fault)
{
    tlm_json stored = model->container.document;
    size_t room = (size_t)(stored.end - stored.begin), where;
    char *text = tlm_arena_take_passing(arena, room, 1);
    if (text == NULL) {
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the description");
    }
    size_t size = tlm_json_decode(stored, text);
    tlm_json_fault bad = tlm_json_check(text, size, &model->document, &where);
    if (bad != TLM_JSON_OK) {
        return tlm_fail(fault, TLM_ERROR_MODEL, "terselm: the description is %s at byte %lu",
                        tlm_json_fault_text(bad), tlm_shown_number(where));
    }
    if (!tlm_json_is_object(model->document)) {
        return tlm_fail(fault, TLM_ERROR_MODEL, "terselm: the description is not a JSON object");
    }
    return TLM_OK;
}

static tlm_status read_format(tlm_reader *reader, tlm_json document)
{
    tlm_json format;
    int64_t number;
    tlm_status status = tlm_find_field(reader, document, "format", &format);
    if (status == TLM_OK && (!tlm_json_integer(format, &number) || number != TLM_FORMAT)) {
        status = tlm_fail(reader->fault, TLM_ERROR_VERSION,
                          "format is %.*s, this library reads %u; update it",
                          tlm_shown_size(format), tlm_shown(format), TLM_FORMAT);
    }
    return status;
}

/* Find the vocabulary's description, its kind and its size. */
static tlm_status find_vocabulary(tlm_reader *reader, tlm_model *model, tlm_json *spec)
{
    tlm_json kind;
    tlm_status status = tlm_find_field(reader, model->document, "vocabulary", spec);
    if (status != TLM_OK) {
        return status;
    }
    memcpy(reader->name, "vocabulary", sizeof "vocabulary");
    if (!tlm_json_is_object(*spec)) {
        return tlm_refuse(reader, "is not described");
    }
    status = tlm_find_field(reader, *spec, "kind", &kind);
    unsigned number = 0;
    while (number < 3 && !tlm_json_equals(kind, VOCABULARIES[number])) {
        number++;
    }
    if (status == TLM_OK && number == 3) {
        status = tlm_fail(reader->fault, TLM_ERROR_VERSION,
                          "vocabulary: kind is %.*s, not words, characters or bpe",
                          tlm_shown_size(kind), tlm_shown(kind));
    }
    if (status == TLM_OK) {
        model->vocabulary.kind = (tlm_vocabulary_kind)number;
        status = tlm_read_integer(reader, *spec, "size", 1, TLM_MAX_SIDE,
                                  &model->vocabulary_size);
    }
    return status;
}

/* Only the output can be tied, and only to the embedding. */
static tlm_status check_ties(const tlm_reader *reader, const tlm_model *model)
{
    tlm_json ties, target;
    tlm_status status = tlm_find_field(reader, model->document, "ties", &ties);
    if (status != TLM_OK) {
        return status;
    }
    bool tied = model->config.tied;
    bool good = tlm_json_is_object(ties) && tlm_json_count(ties) == (tied ? 1 : 0);
    if (good && tied) {
        good = tlm_json_find(ties, "output", &target) == TLM_JSON_FOUND &&
               tlm_json_equals(target, "embedding");
    }
    if (!good) {
        return tlm_fail(reader->fault, TLM_ERROR_MODEL,
                        "ties is %.*s, config.tied needs %s", tlm_shown_size(ties),
                        tlm_shown(ties), tied ? "{\"output\":\"embedding\"}" : "{}");
    }
    return TLM_OK;
}

static tlm_status read_model(tlm_model *model, tlm_trust trust, tlm_arena *arena,
                             const tlm_fault *fault)
{
    tlm_status status = tlm_container_read(&model->container, arena, fault);
    if (status == TLM_OK && trust == TLM_VERIFY) {
        status = tlm_container_verify(&model->container, fault);
    }
    if (status == TLM_OK) {
        status = read_document(model, arena, fault);
    }
    if (status != TLM_OK) {
        return status;
    }
    tlm_reader reader = {.container = &model->container, .arena = arena, .fault = fault,
                         .name = "terselm"};
    tlm_json config, weights, vocabulary;
    status = read_format(&reader, model->document);
    if (status == TLM_OK) {
        status = tlm_find_field(&reader, model->document, "config", &config);
    }
    if (status == TLM_OK) {
        status = tlm_find_field(&reader, model->document, "weights", &weights);
    }
    if (status == TLM_OK) {
        status = find_vocabulary(&reader, model, &vocabulary);
    }
    if (status == TLM_OK) {
        status = tlm_read_config(&reader, config, &model->config);
    }
    if (status == TLM_OK) {
        status = check_ties(&reader, model);
    }
    if (status == TLM_OK) {
        status = tlm_read_weights(&reader, weights, model);
    }
    if (status == TLM_OK) {
        memcpy(reader.name, "vocabulary", sizeof "vocabulary");
        status = tlm_read_vocabulary(&reader, vocabulary, model);
    }
    return status;
}

static bool is_little_endian(void)
{
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

tlm_status tlm_check_file(const void *bytes, size_t n, tlm_container *container,
                          const tlm_fault *fault)
{
    tlm_fail(fault, TLM_OK, "%s", "");
    if (bytes == NULL || (uintptr_t)bytes % 8 != 0) {
        return tlm_fail(fault, TLM_ERROR_ARGUMENT, "bytes is %s",
                        bytes == NULL ? "NULL" : "not at a multiple of 8");
    }
    if (!is_little_endian()) {
        return tlm_fail(fault, TLM_ERROR_VERSION, "this machine is big-endian, files are not");
    }
    return tlm_container_open(container, bytes, n, fault);
}

static uint64_t round_up(uint64_t bytes)
{
    return tlm_round_up(bytes, TLM_ARENA_STEP);
}

tlm_status tlm_enough_for(const tlm_container *container, size_t *size, const tlm_fault *fault)
{
    const uint64_t enough = round_up(sizeof(tlm_model)) + round_up(arena_size(container));
    if (enough > SIZE_MAX / 2) {
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for %lu bytes",
                        tlm_shown_number(enough));
    }
    *size = (size_t)enough;
    return TLM_OK;
}

tlm_status tlm_open_size(const void *bytes, size_t n, size_t *size, char *message,
                         size_t message_size)
{
    const tlm_fault fault = {message, message_size};
    tlm_container container;
    if (size == NULL) {
        return tlm_fail(&fault, TLM_ERROR_ARGUMENT, "size is NULL");
    }
    *size = 0;
    const tlm_status status = tlm_check_file(bytes, n, &container, &fault);
    return status == TLM_OK ? tlm_enough_for(&container, size, &fault) : status;
}

/* Whether a larger arena could have held this file. */
static bool is_too_little(const tlm_container *container, const tlm_arena *arena, size_t memory)
{
    static const tlm_fault silent = {NULL, 0};
    size_t enough;
    return arena->is_short &&
           (tlm_enough_for(container, &enough, &silent) != TLM_OK || memory < enough);
}

static bool begins_with(const tlm_tensor *tensor, const char *text)
{
    const size_t size = strlen(text);
    return tensor->name_size >= size && memcmp(tensor->name, text, size) == 0;
}

static uint64_t read_bytes_of(const tlm_model *model)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < model->container.count; i++) {
        const tlm_tensor *tensor = &model->container.tensors[i];
        if (begins_with(tensor, "vocabulary.") || begins_with(tensor, "pad.") ||
            (begins_with(tensor, "embedding.") && !model->config.tied)) {
            continue;
        }
        bytes += tensor->end - tensor->begin;
    }
    return bytes;
}

tlm_status tlm_open_at(const tlm_container *container, tlm_trust trust, void *memory,
                       size_t memory_size, tlm_model **out, const tlm_fault *fault)
{
    const size_t head = (size_t)round_up(sizeof(tlm_model));
    if (memory_size < head) {
        return tlm_fail(fault, TLM_ERROR_MEMORY, "%lu bytes are too little memory",
                        tlm_shown_number(memory_size));
    }
    tlm_model *model = memory;
    memset(model, 0, sizeof *model);
    model->container = *container;
    tlm_arena arena = {.base = (unsigned char *)memory + head,
                       .size = (memory_size - head) / TLM_ARENA_STEP * TLM_ARENA_STEP};
    const tlm_status status = read_model(model, trust, &arena, fault);
    if (status != TLM_OK && is_too_little(container, &arena, memory_size)) {
        return tlm_fail(fault, TLM_ERROR_MEMORY, "%lu bytes are too little memory",
                        tlm_shown_number(memory_size));
    }
    if (status != TLM_OK) {
        return status;
    }
    model->read_bytes = read_bytes_of(model);
    model->container.tensors = NULL; /* the back of the memory is the caller's again */
    model->container.count = 0;
    model->document = (tlm_json){NULL, NULL};
    model->bytes = head + arena.used;
    model->opening_bytes = model->bytes + arena.passing;
    *out = model;
    return TLM_OK;
}

static tlm_status open_in(const void *bytes, size_t n, tlm_trust trust, void *memory,
                          size_t memory_size, tlm_model **out, const tlm_fault *fault)
{
    tlm_container container;
    if (out == NULL) {
        return tlm_fail(fault, TLM_ERROR_ARGUMENT, "out is NULL");
    }
    *out = NULL;
    if (memory == NULL || (uintptr_t)memory % TLM_ARENA_STEP != 0) {
        return tlm_fail(fault, TLM_ERROR_ARGUMENT, "memory is %s",
                        memory == NULL ? "NULL" : "not at a multiple of 16");
    }
    const tlm_status status = tlm_check_file(bytes, n, &container, fault);
    return status == TLM_OK ? tlm_open_at(&container, trust, memory, memory_size, out, fault)
                            : status;
}

tlm_status tlm_open_in(const void *bytes, size_t n, void *memory, size_t memory_size,
                       tlm_model **out, char *message, size_t message_size)
{
    const tlm_fault fault = {message, message_size};
    return open_in(bytes, n, TLM_VERIFY, memory, memory_size, out, &fault);
}

tlm_status tlm_open_trusted_in(const void *bytes, size_t n, void *memory, size_t memory_size,
                               tlm_model **out, char *message, size_t message_size)
{
    const tlm_fault fault = {message, message_size};
    return open_in(bytes, n, TLM_TRUST, memory, memory_size, out, &fault);
}

size_t tlm_model_bytes(const tlm_model *model)
{
    return model == NULL ? 0 : model->bytes;
}

size_t tlm_opening_bytes(const tlm_model *model)
{
    return model == NULL ? 0 : model->opening_bytes;
}

tlm_status tlm_describe(const tlm_model *model, tlm_description *out)
{
    if (model == NULL || out == NULL) {
        return TLM_ERROR_ARGUMENT;
    }
    const tlm_config *config = &model->config;
    *out = (tlm_description){
        .format = TLM_FORMAT,
        .cell = tlm_cell_name(config->cell),
        .output = config->adaptive ? "adaptive" : "softmax",
        .vocabulary_kind = VOCABULARIES[model->vocabulary.kind],
        .vocabulary_size = model->vocabulary_size,
        .embedding = config->embedding,
        .layers = config->layers,
        .hidden = config->hidden,
        .projection = config->projection,
        .matrices = model->matrices,
        .tied = config->tied,
        .file_bytes = model->container.size,
        .read_bytes = model->read_bytes,
    };
    return TLM_OK;
}
