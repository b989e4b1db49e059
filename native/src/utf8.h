/* UTF-8, one character at a time. */
#ifndef TLM_UTF8_H
#define TLM_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of the character at `text`, 1 to 4; 0 if it is not UTF-8 (too long a form, a
   surrogate, beyond U+10FFFF, cut off). `code` receives its number. */
static inline size_t tlm_utf8_next(const unsigned char *text, size_t size, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (size == 0)
        return 0;
    const unsigned first = text[0];
    *code = first;
    if (first < 0x80)
        return 1;
    const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
    if (length == 0 || first > 0xf4 || size < length)
        return 0;
    uint32_t value = first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text[i] & 0x3fu);
    }
    *code = value;
    const int surrogate = value >= 0xd800 && value < 0xe000;
    return value < least[length] || value > 0x10ffff || surrogate ? 0 : length;
}

#endif
