/* Models and contexts in memory of the C library. Left out by TLM_NO_MALLOC. */
#include "context.h"

#ifndef TLM_NO_MALLOC

#include <stdlib.h>

tlm_status tlm_open_model(const void *bytes, size_t n, tlm_trust trust, tlm_model **out,
                          char *message, size_t message_size)
{
    const tlm_fault fault = {message, message_size};
    tlm_container container;
    size_t size = 0;
    if (out == NULL) {
        return tlm_fail(&fault, TLM_ERROR_ARGUMENT, "out is NULL");
    }
    *out = NULL;
    tlm_status status = tlm_check_file(bytes, n, &container, &fault);
    if (status == TLM_OK) {
        status = tlm_enough_for(&container, &size, &fault);
    }
    if (status != TLM_OK) {
        return status;
    }
    void *memory = malloc(size);
    if (memory == NULL) {
        return tlm_fail(&fault, TLM_ERROR_MEMORY, "no memory for %lu bytes", tlm_shown_number(size));
    }
    status = tlm_open_at(&container, trust, memory, size, out, &fault);
    if (status != TLM_OK) {
        free(memory);
        return status;
    }
    (*out)->is_allocated = true;
    return TLM_OK;
}

tlm_status tlm_open(const void *bytes, size_t n, tlm_model **out, char *message,
                    size_t message_size)
{
    return tlm_open_model(bytes, n, TLM_VERIFY, out, message, message_size);
}

void tlm_close(tlm_model *model)
{
    if (model != NULL) {
#ifndef TLM_NO_FILES
        tlm_release_file(model->mapping, model->mapping_size);
#endif
        if (model->is_allocated) {
            free(model);
        }
    }
}

tlm_status tlm_context_open(const tlm_model *model, const tlm_options *options, tlm_context **out)
{
    size_t size;
    if (out == NULL)
        return TLM_ERROR_ARGUMENT;
    *out = NULL;
    tlm_status status = tlm_context_size(model, options, &size);
    if (status != TLM_OK)
        return status;
    unsigned char *block = calloc(1, size + TLM_SCRATCH_STEP); /* below TLM_TOO_MUCH */
    if (block == NULL)
        return TLM_ERROR_MEMORY;
    unsigned char *memory = block;
    memory += (TLM_SCRATCH_STEP - (uintptr_t)block % TLM_SCRATCH_STEP) % TLM_SCRATCH_STEP;
    status = tlm_context_make(model, options, memory, size, out);
    if (status != TLM_OK) {
        free(block);
        return status;
    }
    (*out)->block = block;
    return TLM_OK;
}

void tlm_context_close(tlm_context *context)
{
    if (context != NULL) {
        tlm_pool_close(context->engine.pool);
        free(context->block);
    }
}

#endif
