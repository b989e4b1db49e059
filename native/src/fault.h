/* How a reader says what is wrong. */
#ifndef TLM_FAULT_H
#define TLM_FAULT_H

#include "terselm.h"

/* Where the message goes; `text` may be NULL. */
typedef struct tlm_fault {
    char *text;
    size_t size;
} tlm_fault;

#if defined(__GNUC__) && !defined(__NEWLIB__) /* where uint32_t is a long of an int's size */
#define TLM_PRINTF(text, rest) __attribute__((format(printf, text, rest)))
#else
#define TLM_PRINTF(text, rest)
#endif

/* Write the message and return `status`. */
tlm_status tlm_fail(const tlm_fault *fault, tlm_status status, const char *format, ...)
    TLM_PRINTF(3, 4);

#endif
