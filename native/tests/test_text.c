/* Tokens as text and text as tokens: of hostile texts, too.
 *
 * Usage: test_text FOLDER, which tests/make_malformed.py wrote. */
#include "run_model.h"

enum { ROOM = 20000 };

static tlm_status tokenize(const tlm_model *model, const char *text, size_t size,
                           uint32_t *tokens, size_t *count)
{
    /* A block of the very size, so that a sanitizer sees a read beyond it. */
    char *copy = take(size);
    memcpy(copy, text, size);
    const tlm_status status = tlm_tokenize(model, copy, size, tokens, ROOM, count);
    free(copy);
    return status;
}

static void test_words_of(const tlm_model *model, const char *name)
{
    const uint32_t size = size_of(model);
    char text[TLM_MAX_TOKEN_BYTES], longest[300];
    uint32_t bytes;
    for (uint32_t token = 0; token < size; token++) {
        check(tlm_token_text(model, token, text, &bytes) == TLM_OK && bytes > 0, "%s: token %u",
              name, token);
        /* The end of a line in a byte-pair encoding is not the byte. */
        const uint32_t found = tlm_find_token(model, text, bytes);
        check(found == token || (bytes == 1 && text[0] == '\n'), "%s: token %u is found as %u",
              name, token, found);
    }
    memset(longest, 'x', sizeof longest);
    check(tlm_token_text(model, size, text, &bytes) == TLM_ERROR_ARGUMENT &&
              tlm_token_text(model, UINT32_MAX, text, &bytes) == TLM_ERROR_ARGUMENT &&
              tlm_token_text(NULL, 0, text, &bytes) == TLM_ERROR_ARGUMENT, "tokens outside");
    check(tlm_find_token(model, longest, sizeof longest) == TLM_NO_TOKEN &&
              tlm_find_token(model, "", 0) == TLM_NO_TOKEN &&
              tlm_find_token(model, "\xff\xff", 2) == TLM_NO_TOKEN, "%s: no tokens", name);
}

static void test_invalid(const tlm_model *model, const char *name)
{
    static const char *const wrong[] = {"\x80", "a\xff", "\xc3", "\xc0\xaf", "\xe0\x80\x80",
                                        "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
                                        "\xf0\x9f\x98", "a \xc3 b"};
    static uint32_t tokens[ROOM];
    size_t count = 0;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check(tokenize(model, wrong[i], strlen(wrong[i]), tokens, &count) == TLM_ERROR_ARGUMENT,
              "%s: text %zu is not UTF-8", name, i);
    check(tokenize(model, "", 0, tokens, &count) == TLM_OK && count == 0 &&
              tlm_tokenize(model, NULL, 0, NULL, 0, &count) == TLM_OK && count == 0, "no text");
    check(tlm_tokenize(model, NULL, 1, tokens, 1, &count) == TLM_ERROR_ARGUMENT &&
              tlm_tokenize(model, "a", 1, NULL, 1, &count) == TLM_ERROR_ARGUMENT &&
              tlm_tokenize(model, "a", 1, tokens, 1, NULL) == TLM_ERROR_ARGUMENT, "arguments");
}

/* Random texts of a few pieces: ids in range, and as many however much room there is. */
static void test_texts(const tlm_model *model, const char *name)
{
    static const char *const pieces[] = {"a", "w01", " ", "\n", "\t", "<unk>", "<eos>", "It's",
                                         "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "12",
                                         ".", "-", "'", "A", "\r\n", "the", "b's", "  ", "\xc2\xa0"};
    static uint32_t tokens[ROOM], few[ROOM];
    const uint32_t size = size_of(model), unknown = tlm_unknown_token(model);
    tlm_description about;
    uint32_t random = 3;
    tlm_describe(model, &about);
    const bool bytes = strcmp(about.vocabulary_kind, "bpe") == 0;
    for (unsigned trial = 0; trial < 100; trial++) {
        char text[400];
        size_t length = 0, count = 0, again = 0;
        for (unsigned i = draw(&random) % 30; i > 0; i--) {
            const char *piece = pieces[draw(&random) % (sizeof pieces / sizeof *pieces)];
            memcpy(text + length, piece, strlen(piece));
            length += strlen(piece);
        }
        const tlm_status status = tokenize(model, text, length, tokens, &count);
        check(status == TLM_OK || (unknown == TLM_NO_TOKEN && !bytes), "%s: a text", name);
        bool inside = true;
        for (size_t i = 0; i < count; i++)
            inside = inside && tokens[i] < size;
        check(inside, "%s: tokens of a text", name);
        check(tlm_tokenize(model, text, length, NULL, 0, &again) == status && again == count,
              "%s: counting", name);
        const size_t room = count / 2;
        few[room] = 12345;
        tlm_tokenize(model, text, length, few, room, &again);
        check(again == count && memcmp(few, tokens, room * sizeof *few) == 0 &&
                  few[room] == 12345, "%s: little room", name);
        if (!bytes || strstr(name, "lowercase") != NULL)
            continue;
        char back[800]; /* every text comes back from its tokens */
        size_t at = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t part;
            char word[TLM_MAX_TOKEN_BYTES];
            tlm_token_text(model, tokens[i], word, &part);
            memcpy(back + at, word, part);
            at += part;
        }
        check(at == length && memcmp(back, text, at) == 0, "%s: a text comes back", name);
    }
}

/* Pieces longer than the library's buffer, cut where a character would be cut in two. */
static void test_long(const tlm_model *model, const char *name)
{
    static char text[16000];
    static uint32_t tokens[ROOM];
    static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    for (unsigned shift = 0; shift < 4; shift++)
        for (unsigned c = 0; c < 4; c++) {
            const size_t part = strlen(characters[c]);
            size_t length = 0, count = 0;
            for (; length < shift; length++)
                text[length] = 'a';
            for (; length + part <= sizeof text; length += part)
                memcpy(text + length, characters[c], part);
            const tlm_status status = tokenize(model, text, length, tokens, &count);
            check(status == TLM_OK || tlm_unknown_token(model) == TLM_NO_TOKEN,
                  "%s: a long piece", name);
            check(count <= length, "%s: %zu tokens of %zu bytes", name, count, length);
        }
}

static void expect(const char *folder, const char *name, const char *text, const char *wanted)
{
    tlm_model *model = open_model(folder, name);
    uint32_t tokens[ROOM];
    size_t count = 0, at = 0;
    char found[500] = "";
    if (model == NULL)
        return;
    check(tokenize(model, text, strlen(text), tokens, &count) == TLM_OK, "%s: %s", name, text);
    for (size_t i = 0; i < count; i++) {
        char word[TLM_MAX_TOKEN_BYTES];
        uint32_t size;
        tlm_token_text(model, tokens[i], word, &size);
        at += (size_t)snprintf(found + at, sizeof found - at, "%.*s|", (int)size, word);
    }
    check(strcmp(found, wanted) == 0, "%s: \"%s\" is %s, expected %s", name, text, found, wanted);
    tlm_close(model);
}

static void test_expected(const char *folder)
{
    expect(folder, "good-vocabulary-words", " a  ab\nzebra x\n", "a|ab|<eos>|zebra|<unk>|<eos>|");
    expect(folder, "good-vocabulary-words-order", "The B's, a.a", "the|b's|<unk>|<unk>|");
    expect(folder, "good-vocabulary-characters", "ab\xc3\xa9 \n", "a|b|\xc3\xa9|<unk>|\n|");
    expect(folder, "good-vocabulary-characters-no-unknown", "Ca a\n", "c|a| |a|\n|");
    expect(folder, "good-vocabulary-bpe", "aaaa the", "aaaa| th|e|");
    expect(folder, "good-vocabulary-bpe", "aaa\xc3\xa9", "aaa|\xc3\xa9|");
    expect(folder, "good-vocabulary-bpe-lowercase", "AAaa THE", "aaaa| th|e|");
    /* What follows an apostrophe is a piece of its own, also if it was in upper case. */
    expect(folder, "good-vocabulary-bpe-lowercase-contraction", "IT'S it's", "i|t|'s| |i|t|'s|");
}

static void test_model(const tlm_model *model, const char *name)
{
    if (strstr(name, "vocabulary") == NULL)
        return;
    test_words_of(model, name);
    test_invalid(model, name);
    test_texts(model, name);
    test_long(model, name);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        for_each_model(argv[1], test_model);
        test_expected(argv[1]);
    } else {
        printf("SKIPPED: no folder of models is given\n");
    }
    return end_of_test();
}
