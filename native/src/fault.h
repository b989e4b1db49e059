/* How a reader says what is wrong. */
#ifndef TLM_FAULT_H
#define TLM_FAULT_H

#include <limits.h>

#include "terselm.h"

/* Where the message goes; `text` may be NULL. */
typedef struct tlm_fault {
    char *text;
    size_t size;
} tlm_fault;

/* A number for a message, as %lu: small C libraries know neither %llu nor %zu, and take what comes
   after for something else. Where a long has 32 bits, what is greater is shown as the greatest. */
static inline unsigned long tlm_shown_number(uint64_t number)
{
    return number < ULONG_MAX ? (unsigned long)number : ULONG_MAX;
}

#if defined(__GNUC__) && !defined(__NEWLIB__) /* where uint32_t is a long of an int's size */
#define TLM_PRINTF(text, rest) __attribute__((format(printf, text, rest)))
#else
#define TLM_PRINTF(text, rest)
#endif

/* Write the message and return `status`. */
tlm_status tlm_fail(const tlm_fault *fault, tlm_status status, const char *format, ...)
    TLM_PRINTF(3, 4);

#endif
