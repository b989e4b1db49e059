#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

tlm_status tlm_fail(const tlm_fault *fault, tlm_status status, const char *format, ...)
{
    if (fault->text != NULL && fault->size > 0) {
        va_list arguments;
        va_start(arguments, format);
        if (vsnprintf(fault->text, fault->size, format, arguments) < 0) {
            fault->text[0] = '\0';
        }
        va_end(arguments);
    }
    return status;
}

const char *tlm_error_text(tlm_status status)
{
    switch (status) {
    case TLM_OK:
        return "no error";
    case TLM_ERROR_ARGUMENT:
        return "impossible argument";
    case TLM_ERROR_MEMORY:
        return "out of memory";
    case TLM_ERROR_READ:
        return "the file cannot be read";
    case TLM_ERROR_NOT_A_MODEL:
        return "not a terselm model";
    case TLM_ERROR_DAMAGED:
        return "the file is damaged";
    case TLM_ERROR_CHECKSUM:
        return "the checksum differs";
    case TLM_ERROR_VERSION:
        return "made by a newer terselm";
    case TLM_ERROR_MODEL:
        return "the file describes an impossible model";
    }
    return "unknown error";
}
