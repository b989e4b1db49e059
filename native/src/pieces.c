/* Where a byte-pair encoding cuts text before it merges, as byte-level encodings commonly do. The
   pattern, with the first alternative that fits taken:

       's 't 're 've 'm 'll 'd
       ' '? letters+    ' '? numbers+    ' '? others+
       white space not before a non-space, white space                                          */
#include <string.h>

#include "byte_pairs.h"
#include "unicode_ranges.h"
#include "utf8.h"

typedef enum class { NONE, SPACE, LETTER, NUMBER, OTHER } class;

static bool is_in(const uint32_t (*ranges)[2], size_t count, uint32_t code)
{
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ranges[middle][1] < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low][0] <= code;
}

static bool is_white_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* The class of the character at `text` and its bytes; NONE at the end. */
static class next_class(const uint8_t *text, size_t size, size_t *length)
{
    uint32_t code;
    *length = tlm_utf8_next(text, size, &code);
    if (*length == 0)
        return NONE;
    if (is_white_space(code))
        return SPACE;
    if (is_in(TLM_LETTERS, sizeof TLM_LETTERS / sizeof *TLM_LETTERS, code))
        return LETTER;
    if (is_in(TLM_NUMBERS, sizeof TLM_NUMBERS / sizeof *TLM_NUMBERS, code))
        return NUMBER;
    return OTHER;
}

static size_t contraction(const uint8_t *text, size_t size, bool lowercase)
{
    static const char *const ends[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t length = strlen(ends[i]);
        size_t same = 0;
        while (same < length && same < size &&
               tlm_lower(text[same], lowercase) == (uint8_t)ends[i][same])
            same++;
        if (same == length)
            return length;
    }
    return 0;
}

size_t tlm_byte_pairs_piece(const uint8_t *text, size_t size, bool lowercase)
{
    size_t length, at = contraction(text, size, lowercase);
    if (at != 0)
        return at;
    class kind = next_class(text, size, &length);
    if (text[0] == ' ' && size > 1) {
        size_t second;
        const class after = next_class(text + 1, size - 1, &second);
        if (after > SPACE) {
            at = 1;
            kind = after;
            length = second;
        }
    }
    size_t last = at; /* where the last character begins */
    while (length != 0) {
        last = at;
        at += length;
        if (next_class(text + at, size - at, &length) != kind)
            break;
    }
    /* Of white space before a word the last character is left: it begins the next piece. */
    return kind == SPACE && at < size && last > 0 ? last : at;
}
