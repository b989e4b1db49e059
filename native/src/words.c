/* A sorted, front-coded list of words: checked and indexed once, then searched in place. */
#include "words.h"

#include <string.h>

#include "model.h"
#include "utf8.h"

enum { STEP = 16, MORE = 15 };

static const char WORDS[] = "vocabulary.words";
static const char ORDER[] = "vocabulary.order";

/* Read the next word, trusting nothing; NULL, or what is wrong with it. */
static const char *next_word(const uint8_t **at, const uint8_t *end, tlm_word *word)
{
    uint32_t lengths[2] = {(uint32_t)**at >> 4, **at & 15u};
    ++*at;
    for (int i = 0; i < 2; i++)
        if (lengths[i] == MORE) {
            if (*at == end)
                return "is cut off";
            lengths[i] += *(*at)++;
        }
    const uint32_t shared = lengths[0], rest = lengths[1];
    if (shared > word->size)
        return "shares more than the word before has";
    if ((size_t)(end - *at) < rest)
        return "is cut off";
    if (shared + rest > TLM_MAX_WORD)
        return "is over 255 bytes";
    /* What follows the shared bytes must rise. */
    const uint32_t old = word->size - shared, both = old < rest ? old : rest;
    const int order = memcmp(*at, word->text + shared, both);
    if (order < 0 || (order == 0 && rest <= old))
        return "is out of order or there twice";
    memcpy(word->text + shared, *at, rest);
    word->size = shared + rest;
    *at += rest;
    word->at = *at;
    return NULL;
}

static const char *fault_of(const tlm_word *word, bool characters)
{
    uint32_t count = 0, code;
    for (size_t at = 0; at < word->size; count++) {
        const size_t length = tlm_utf8_next(word->text + at, word->size - at, &code);
        if (length == 0)
            return "is not UTF-8";
        if (!characters && (code == ' ' || (code >= '\t' && code <= '\r')))
            return "holds white space";
        at += length;
    }
    const bool unknown = word->size == 5 && memcmp(word->text, "<unk>", 5) == 0;
    return characters && count != 1 && !unknown ? "is not one character" : NULL;
}

/* Check all words; count them and the text of every 16th. */
static tlm_status check(const tlm_fault *fault, bool characters, tlm_words *words, uint64_t *text)
{
    tlm_word word = {.size = 0};
    const uint8_t *at = words->coded, *end = at + words->size;
    *text = 0;
    for (words->count = 0; at < end; words->count++) {
        const char *wrong = next_word(&at, end, &word);
        if (wrong == NULL)
            wrong = fault_of(&word, characters);
        if (wrong != NULL)
            return tlm_fail(fault, TLM_ERROR_MODEL, "%s: word %u %s", WORDS, words->count, wrong);
        if (words->count % STEP == 0)
            *text += word.size;
    }
    if (*text > UINT32_MAX)
        return tlm_fail(fault, TLM_ERROR_MODEL, "%s: every 16th word makes %lu bytes, too many",
                        WORDS, tlm_shown_number(*text));
    return TLM_OK;
}

static bool is_list(const tlm_tensor *coded)
{
    return coded->type == TLM_U8 && coded->rank == 1 && coded->end - coded->begin <= UINT32_MAX;
}

/* Count the words and the text of every 16th, up to the first that is wrong. */
static uint64_t count_words(const tlm_tensor *coded, uint64_t *text)
{
    tlm_word word = {.size = 0};
    const uint8_t *at = coded->data, *end = at + (coded->end - coded->begin);
    uint64_t count = 0;
    *text = 0;
    for (; at < end && next_word(&at, end, &word) == NULL; count++)
        if (count % STEP == 0)
            *text += word.size;
    return count;
}

uint64_t tlm_words_room(const tlm_container *container)
{
    tlm_tensor coded, order;
    uint64_t text;
    if (!tlm_container_peek(container, WORDS, &coded) || !is_list(&coded))
        return 0;
    const uint64_t count = count_words(&coded, &text), anchors = count / STEP + 1;
    const uint64_t way_back =
        tlm_container_peek(container, ORDER, &order) ? tlm_permutation_room(count) : 0;
    return text + (2 * anchors + 1) * sizeof(uint32_t) + 3 * TLM_ARENA_STEP + way_back;
}

static tlm_status read_order(const tlm_tensor *tensor, tlm_arena *arena, const tlm_fault *fault,
                             tlm_words *words)
{
    const tlm_numbers ids = {tensor->data, tensor->type == TLM_U32};
    uint32_t bad;
    if ((!ids.wide && tensor->type != TLM_U16) || tensor->rank != 1 ||
        tensor->shape[0] != words->count)
        return tlm_fail(fault, TLM_ERROR_MODEL, "%s is not an id for each of %u words", ORDER,
                        words->count);
    const tlm_status status = tlm_permutation_read(arena, ids, words->count, &words->order, &bad);
    if (status == TLM_ERROR_MODEL)
        return tlm_fail(fault, status, "%s does not hold each id once: place %u has %u", ORDER,
                        bad, tlm_number(ids, bad));
    return status == TLM_OK ? status : tlm_fail(fault, status, "no memory for the vocabulary");
}

/* Note where every 16th word begins and what it is. */
static tlm_status make_anchors(tlm_arena *arena, const tlm_fault *fault, tlm_words *words,
                               size_t text)
{
    words->anchors = words->count / STEP + (words->count % STEP != 0);
    uint32_t *starts = tlm_arena_take(arena, words->anchors, sizeof *starts);
    uint32_t *texts = tlm_arena_take(arena, (size_t)words->anchors + 1, sizeof *texts);
    uint8_t *bytes = tlm_arena_take(arena, text, 1);
    if (starts == NULL || texts == NULL || bytes == NULL)
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the vocabulary");
    tlm_word word = {.size = 0};
    const uint8_t *at = words->coded;
    for (uint32_t i = 0; i < words->count; i++) {
        next_word(&at, words->coded + words->size, &word);
        if (i % STEP == 0) {
            starts[i / STEP] = (uint32_t)(at - words->coded);
            memcpy(bytes + texts[i / STEP], word.text, word.size);
            texts[i / STEP + 1] = texts[i / STEP] + word.size;
        }
    }
    words->starts = starts;
    words->texts = texts;
    words->text = bytes;
    return TLM_OK;
}

tlm_status tlm_words_read(const tlm_model *model, tlm_arena *arena, const tlm_fault *fault,
                          bool characters, tlm_words *words)
{
    const tlm_tensor *coded = tlm_container_find(&model->container, WORDS);
    const tlm_tensor *order = tlm_container_find(&model->container, ORDER);
    if (coded == NULL || !is_list(coded))
        return tlm_fail(fault, TLM_ERROR_MODEL, "%s is %s", WORDS,
                        coded == NULL ? "missing" : "not a list of bytes");
    words->coded = coded->data;
    words->size = (size_t)(coded->end - coded->begin);
    uint64_t text;
    tlm_status status = check(fault, characters, words, &text);
    if (status == TLM_OK && words->count != model->vocabulary_size)
        status = tlm_fail(fault, TLM_ERROR_MODEL, "vocabulary: size is %u, %s holds %u",
                          model->vocabulary_size, WORDS, words->count);
    if (status == TLM_OK)
        status = make_anchors(arena, fault, words, (size_t)text);
    return status == TLM_OK && order != NULL ? read_order(order, arena, fault, words) : status;
}

void tlm_words_next(tlm_word *word)
{
    const uint8_t *at = word->at;
    uint32_t shared = (uint32_t)*at >> 4, rest = *at & 15u;
    at++;
    if (shared == MORE)
        shared += *at++;
    if (rest == MORE)
        rest += *at++;
    memcpy(word->text + shared, at, rest);
    word->size = shared + rest;
    word->at = at + rest;
    word->place++;
}

static void go_to_anchor(const tlm_words *words, uint32_t anchor, tlm_word *word)
{
    word->size = words->texts[anchor + 1] - words->texts[anchor];
    memcpy(word->text, words->text + words->texts[anchor], word->size);
    word->at = words->coded + words->starts[anchor];
    word->place = anchor * STEP;
}

void tlm_words_at(const tlm_words *words, uint32_t place, tlm_word *word)
{
    go_to_anchor(words, place / STEP, word);
    while (word->place < place)
        tlm_words_next(word);
}

/* As memcmp, a word that is the beginning of another one before it. */
static int compare(const uint8_t *a, size_t a_size, const void *b, size_t b_size)
{
    const int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : a_size < b_size ? -1 : a_size > b_size;
}

uint32_t tlm_words_place(const tlm_words *words, const void *text, size_t size)
{
    uint32_t low = 0, high = words->anchors; /* the last anchor that is before the text */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t begin = words->texts[middle];
        if (compare(words->text + begin, words->texts[middle + 1] - begin, text, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return 0;
    tlm_word word;
    go_to_anchor(words, low - 1, &word);
    while (compare(word.text, word.size, text, size) < 0) {
        if (word.place + 1 == words->count)
            return words->count;
        tlm_words_next(&word);
    }
    return word.place;
}

uint32_t tlm_words_find(const tlm_words *words, const void *text, size_t size)
{
    const uint32_t place = tlm_words_place(words, text, size);
    tlm_word word;
    if (place == words->count)
        return TLM_NO_TOKEN;
    tlm_words_at(words, place, &word);
    return compare(word.text, word.size, text, size) == 0 ? tlm_words_id(words, place)
                                                          : TLM_NO_TOKEN;
}
