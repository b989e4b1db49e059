/* The vocabulary of a model, and what a token looks like. */
#include "vocabulary.h"

#include <string.h>

#include "model.h"

static const char END[] = "<eos>";
static const char UNKNOWN[] = "<unk>";

static tlm_status read_splitting(const tlm_reader *reader, tlm_json spec, bool *marks)
{
    tlm_json splitting;
    const tlm_status status = tlm_find_field(reader, spec, "splitting", &splitting);
    *marks = tlm_json_equals(splitting, "punctuation");
    if (status == TLM_OK && !*marks && !tlm_json_equals(splitting, "spaces"))
        return tlm_refuse(reader, "splitting is %.*s, expected spaces or punctuation",
                          tlm_shown_size(splitting), tlm_shown(splitting));
    return status;
}

uint64_t tlm_vocabulary_room(const tlm_container *container)
{
    return tlm_words_room(container) + tlm_byte_pairs_room(container);
}

tlm_status tlm_read_vocabulary(const tlm_reader *reader, tlm_json spec, tlm_model *model)
{
    tlm_vocabulary *v = &model->vocabulary;
    const bool words = v->kind == TLM_WORDS;
    tlm_status status = tlm_read_flag(reader, spec, "lowercase", NULL, &v->lowercase);
    if (status == TLM_OK && words)
        status = read_splitting(reader, spec, &v->marks_are_words);
    if (status == TLM_OK && tlm_json_count(spec) != (words ? 4 : 3)) /* kind and size, too */
        status = tlm_refuse(reader, "has %lu fields, expected kind, size, lowercase%s",
                            tlm_shown_number(tlm_json_count(spec)), words ? " and splitting" : "");
    if (status != TLM_OK)
        return status;
    if (v->kind == TLM_BYTE_PAIRS) {
        v->start = 0;
        v->unknown = TLM_NO_TOKEN;
        return tlm_byte_pairs_read(model, reader->arena, reader->fault, &v->pairs);
    }
    status = tlm_words_read(model, reader->arena, reader->fault, !words, &v->words);
    if (status != TLM_OK)
        return status;
    v->start = words ? tlm_words_find(&v->words, END, sizeof END - 1)
                     : tlm_words_find(&v->words, "\n", 1);
    v->unknown = tlm_words_find(&v->words, UNKNOWN, sizeof UNKNOWN - 1);
    if (v->start == TLM_NO_TOKEN)
        return tlm_refuse(reader, "has no %s, which ends a line", words ? END : "newline");
    return TLM_OK;
}

uint32_t tlm_start_token(const tlm_model *model)
{
    return model == NULL ? TLM_NO_TOKEN : model->vocabulary.start;
}

uint32_t tlm_unknown_token(const tlm_model *model)
{
    return model == NULL ? TLM_NO_TOKEN : model->vocabulary.unknown;
}

tlm_status tlm_token_text(const tlm_model *model, uint32_t token, char *text, uint32_t *size)
{
    if (model == NULL || text == NULL || size == NULL || token >= model->vocabulary_size)
        return TLM_ERROR_ARGUMENT;
    const tlm_vocabulary *v = &model->vocabulary;
    if (v->kind == TLM_BYTE_PAIRS) {
        *size = tlm_byte_pairs_text(&v->pairs, token, (uint8_t *)text);
        return TLM_OK;
    }
    tlm_word word;
    const tlm_numbers places = v->words.order.places;
    tlm_words_at(&v->words, places.values == NULL ? token : tlm_number(places, token), &word);
    memcpy(text, word.text, word.size);
    *size = word.size;
    return TLM_OK;
}

uint32_t tlm_find_token(const tlm_model *model, const char *text, size_t size)
{
    if (model == NULL || text == NULL)
        return TLM_NO_TOKEN;
    const tlm_vocabulary *v = &model->vocabulary;
    if (v->kind == TLM_BYTE_PAIRS && size == 1 && *text == '\n')
        return v->start; /* not the byte, which no text is made of */
    if (v->kind == TLM_BYTE_PAIRS)
        return tlm_byte_pairs_find(&v->pairs, (const uint8_t *)text, size);
    return tlm_words_find(&v->words, text, size);
}
