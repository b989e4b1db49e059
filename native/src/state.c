/* States: how large they are, how they begin, how they are stored. */
#include <string.h>

#include "context.h"

static const char MAGIC[8] = {'T', 'L', 'M', 's', 't', 'a', 't', 'e'};

enum { DIGEST = 16, HEAD = sizeof MAGIC + DIGEST };

size_t tlm_state_size(const tlm_model *model)
{
    size_t floats = 0;
    if (model == NULL)
        return 0;
    for (uint32_t i = 0; i < model->config.layers; i++)
        floats += tlm_layer_state(model, i);
    return floats * sizeof(float);
}

const float *tlm_output_vector(const tlm_model *model, const void *state)
{
    const size_t last = tlm_layer_state(model, model->config.layers - 1);
    return (const float *)state + tlm_state_size(model) / sizeof(float) - last;
}

tlm_status tlm_state_init(const tlm_model *model, void *state)
{
    if (model == NULL || state == NULL)
        return TLM_ERROR_ARGUMENT;
    memset(state, 0, tlm_state_size(model));
    return TLM_OK;
}

size_t tlm_state_saved_size(const tlm_model *model)
{
    return model == NULL ? 0 : HEAD + tlm_state_size(model);
}

/* The first digits of the file's checksum say which model it is. */
static const char *digest_of(const tlm_model *model)
{
    return model->container.digest.begin + 1;
}

tlm_status tlm_state_save(const tlm_model *model, const void *state, void *bytes)
{
    if (model == NULL || state == NULL || bytes == NULL)
        return TLM_ERROR_ARGUMENT;
    unsigned char *at = bytes;
    memcpy(at, MAGIC, sizeof MAGIC);
    memcpy(at + sizeof MAGIC, digest_of(model), DIGEST);
    memcpy(at + HEAD, state, tlm_state_size(model));
    return TLM_OK;
}

tlm_status tlm_state_restore(const tlm_model *model, const void *bytes, size_t size, void *state)
{
    if (model == NULL || state == NULL || bytes == NULL)
        return TLM_ERROR_ARGUMENT;
    const unsigned char *at = bytes;
    if (size < HEAD || memcmp(at, MAGIC, sizeof MAGIC) != 0)
        return TLM_ERROR_DAMAGED;
    if (memcmp(at + sizeof MAGIC, digest_of(model), DIGEST) != 0)
        return TLM_ERROR_MODEL;
    if (size != tlm_state_saved_size(model))
        return TLM_ERROR_DAMAGED;
    memcpy(state, at + HEAD, size - HEAD);
    return TLM_OK;
}
