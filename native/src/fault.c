#include "fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

tlm_status tlm_fail(const tlm_fault *fault, tlm_status status, const char *format, ...)
{
    if (fault->text != NULL && fault->size > 0) {
        va_list arguments;
        va_start(arguments, format);
        if (vsnprintf(fault->text, fault->size, format, arguments) < 0) {
            fault->text[0] = '\0';
        }
        va_end(arguments);
        /* What a file or a name says may have line ends in it. */
        for (char *at = fault->text; *at != '\0'; at++)
            if ((unsigned char)*at < ' ')
                *at = ' ';
    }
    return status;
}

const char *tlm_error_text(tlm_status status)
{
    /* In the order of the statuses; a table of pointers would be larger. */
    const char *text = "no error\0"
                       "impossible argument\0"
                       "out of memory\0"
                       "the file cannot be read\0"
                       "not a terselm model\0"
                       "the file is damaged\0"
                       "the checksum differs\0"
                       "made by a newer terselm\0"
                       "the file describes an impossible model\0"
                       "unknown error";
    const unsigned known = TLM_ERROR_MODEL;
    for (unsigned left = (unsigned)status <= known ? (unsigned)status : known + 1; left > 0; left--)
        text += strlen(text) + 1;
    return text;
}
