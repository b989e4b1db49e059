/* Text as tokens, as terselm.text does it in Python. */
#include <string.h>

#include "model.h"
#include "utf8.h"

enum { LONGEST = TLM_MAX_WORD };
#ifdef TLM_NO_MALLOC
enum { BUFFER = 512 }; /* nine times as many bytes of stack */
#else
enum { BUFFER = 4096 };
#endif

/* Where tokens go. */
typedef struct sink {
    const tlm_vocabulary *vocabulary;
    uint32_t *tokens;
    size_t room;
    size_t count;
    bool failed; /* something is in no vocabulary */
} sink;

static void put(sink *s, uint32_t token)
{
    if (token == TLM_NO_TOKEN) {
        s->failed = true;
        return;
    }
    if (s->count < s->room)
        s->tokens[s->count] = token;
    s->count++;
}

static void put_word(sink *s, const uint8_t *text, size_t size)
{
    const tlm_vocabulary *v = s->vocabulary;
    uint8_t word[LONGEST];
    uint32_t token = TLM_NO_TOKEN;
    if (size <= LONGEST) {
        for (size_t i = 0; i < size; i++)
            word[i] = tlm_lower(text[i], v->lowercase);
        token = tlm_words_find(&v->words, word, size);
    }
    put(s, token == TLM_NO_TOKEN ? v->unknown : token);
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool is_mark(uint8_t c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

static bool is_letter(uint8_t byte)
{
    return !is_space(byte) && !is_mark(byte);
}

static bool is_joiner(uint8_t byte)
{
    return byte == '\'' || byte == '.' || byte == '_' || byte == '-';
}

/* The bytes of the word or mark at `text`, which is no white space. */
static size_t word_size(const uint8_t *text, size_t size, bool marks_are_words)
{
    size_t at = 1;
    if (!marks_are_words) {
        while (at < size && !is_space(text[at]))
            at++;
        return at;
    }
    if (is_mark(text[0]))
        return 1;
    while (at < size && (is_letter(text[at]) ||
                         (is_joiner(text[at]) && at + 1 < size && is_letter(text[at + 1]))))
        at++;
    return at;
}

static void put_words(sink *s, const uint8_t *line, size_t size)
{
    for (size_t at = 0; at < size;) {
        if (is_space(line[at])) {
            at++;
            continue;
        }
        const size_t length = word_size(line + at, size - at, s->vocabulary->marks_are_words);
        put_word(s, line + at, length);
        at += length;
    }
}

static void put_characters(sink *s, const uint8_t *line, size_t size)
{
    uint32_t code;
    for (size_t at = 0; at < size;) {
        const size_t length = tlm_utf8_next(line + at, size - at, &code);
        put_word(s, line + at, length);
        at += length;
    }
}

/* A piece longer than the buffer is cut between two characters: nothing that people write is. */
static void put_pieces(sink *s, const uint8_t *line, size_t size)
{
    const bool lowercase = s->vocabulary->lowercase;
    uint8_t text[BUFFER];
    uint32_t piece[BUFFER], merges[BUFFER];
    for (size_t at = 0; at < size;) {
        const size_t most = BUFFER + 8; /* and what comes after, on which the piece may depend */
        const size_t seen = size - at < most ? size - at : most;
        size_t length = tlm_byte_pairs_piece(line + at, seen, lowercase);
        if (length > BUFFER)
            for (length = BUFFER; (line[at + length] & 0xc0) == 0x80;)
                length--;
        for (size_t i = 0; i < length; i++)
            text[i] = tlm_lower(line[at + i], lowercase);
        const size_t count =
            tlm_byte_pairs_encode(&s->vocabulary->pairs, text, length, piece, merges);
        for (size_t i = 0; i < count; i++)
            put(s, piece[i]);
        at += length;
    }
}

static bool is_utf8(const uint8_t *text, size_t size)
{
    uint32_t code;
    for (size_t at = 0, length; at < size; at += length) {
        length = tlm_utf8_next(text + at, size - at, &code);
        if (length == 0)
            return false;
    }
    return true;
}

tlm_status tlm_tokenize(const tlm_model *model, const char *text, size_t size, uint32_t *tokens,
                        size_t room, size_t *count)
{
    if (model == NULL || (text == NULL && size != 0) || count == NULL ||
        (tokens == NULL && room != 0))
        return TLM_ERROR_ARGUMENT;
    const uint8_t *at = (const uint8_t *)text, *end = size ? at + size : at;
    if (!is_utf8(at, size))
        return TLM_ERROR_ARGUMENT;
    sink s = {&model->vocabulary, tokens, room, 0, false};
    while (at < end) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t line = (size_t)((newline == NULL ? end : newline) - at);
        switch (model->vocabulary.kind) {
        case TLM_WORDS: put_words(&s, at, line); break;
        case TLM_CHARACTERS: put_characters(&s, at, line); break;
        case TLM_BYTE_PAIRS: put_pieces(&s, at, line); break;
        }
        if (newline == NULL)
            break;
        put(&s, model->vocabulary.start);
        at = newline + 1;
    }
    *count = s.count;
    return s.failed ? TLM_ERROR_ARGUMENT : TLM_OK;
}
