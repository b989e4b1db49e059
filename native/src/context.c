/* Making a context, stepping states. */
#include "context.h"

#include <string.h>

/* The widest vector that a layer or the output layer works with. */
static size_t width_of(const tlm_model *model)
{
    size_t most = tlm_most(model->config.embedding, model->config.output_size);
    for (uint32_t i = 0; i < model->config.layers; i++) {
        const tlm_matrix *all[TLM_LAYER_MATRICES];
        tlm_layer_matrices(&model->layers[i], all);
        for (unsigned w = 0; w < TLM_LAYER_MATRICES; w++)
            if (all[w] != NULL)
                most = tlm_most(most, tlm_most(all[w]->out, all[w]->in));
    }
    for (uint32_t i = 0; i < model->config.tails; i++)
        most = tlm_most(most, model->config.inner[i]);
    return tlm_padded_floats(most);
}

static size_t scratch_of(const tlm_model *model, uint32_t batch, const tlm_preview *preview)
{
    size_t most = tlm_look_up_room(model->embedding);
    most = tlm_most(most, tlm_cells_room(model, batch));
    most = tlm_most(most, tlm_preview_room(preview, model));
    return tlm_plus(tlm_most(most, tlm_output_room(model, batch)), TLM_SCRATCH_STEP);
}

/* What a context consists of: places for pointers, or none where bytes are only counted. */
typedef struct layout {
    tlm_scratch scratch;
    size_t bytes;
} layout;

static void *take(layout *l, size_t count, size_t size)
{
    l->bytes = tlm_plus(l->bytes, tlm_scratch_bytes(count, size));
    return l->scratch.at == NULL ? NULL : tlm_scratch_take(&l->scratch, count, size);
}

/* Fill in the pointers of `c`, whose memory begins at `at`; NULL to count. Returns the bytes. */
static size_t lay_out(tlm_context *c, unsigned char *at)
{
    layout l = {{at, NULL}, 0};
    const size_t row = tlm_times(c->width, sizeof(float)), floats = sizeof(float);
    const bool has_third =
        c->model->config.cell == TLM_PROJECTED_GRU || c->model->config.projection != 0;
    c->vectors = take(&l, c->batch, tlm_times(c->vector_width, floats));
    c->first = take(&l, c->batch, row);
    c->second = take(&l, c->batch, row);
    c->third = take(&l, has_third ? c->batch : 0, row);
    c->scores = take(&l, c->batch, tlm_times(c->score_width, floats));
    c->kept = take(&l, c->batch, c->model->config.output_size * floats);
    c->chosen = take(&l, c->batch, floats);
    c->inputs = take(&l, c->batch, sizeof(float *));
    c->more = take(&l, c->batch, sizeof(float *));
    c->outputs = take(&l, c->batch, sizeof(float *));
    tlm_scratch *places = at == NULL ? NULL : &l.scratch;
    l.bytes = tlm_plus(l.bytes, tlm_preview_lay_out(&c->preview, places));
    const size_t rest = scratch_of(c->model, c->batch, &c->preview);
    if (at != NULL) {
        l.scratch.end = l.scratch.at + rest;
        c->scratch = l.scratch;
    }
    return tlm_plus(l.bytes, rest);
}

bool tlm_can_run(const char *kernels)
{
    return kernels != NULL && tlm_kernels_named(kernels) != NULL;
}

/* Fill in all but the pointers of a context; TLM_ERROR_ARGUMENT for options that cannot be. */
static tlm_status plan(const tlm_model *model, const tlm_options *options, tlm_context *out)
{
    const tlm_options none = {0};
    options = options == NULL ? &none : options;
    if (model == NULL || options->batch > TLM_MAX_BATCH || options->threads > 256 ||
        (options->threads > 1 && !tlm_pool_exists()))
        return TLM_ERROR_ARGUMENT;
    const tlm_kernels *kernels = options->kernels == NULL ? tlm_kernels_best()
                                                          : tlm_kernels_named(options->kernels);
    if (kernels == NULL)
        return TLM_ERROR_ARGUMENT;
    *out = (tlm_context){.model = model, .batch = options->batch ? options->batch : 1};
    out->engine.kernels = kernels;
    const tlm_status planned = tlm_preview_plan(model, options, &out->preview);
    if (planned != TLM_OK)
        return planned;
    out->width = width_of(model);
    out->vector_width = tlm_padded_floats(model->config.embedding);
    out->score_width = tlm_padded_floats((size_t)model->vocabulary_size + TLM_MAX_TAILS);
    out->bytes = tlm_plus(tlm_scratch_bytes(1, sizeof *out), lay_out(out, NULL));
    return TLM_OK;
}

tlm_status tlm_context_size(const tlm_model *model, const tlm_options *options, size_t *size)
{
    tlm_context planned;
    if (size == NULL)
        return TLM_ERROR_ARGUMENT;
    *size = 0;
    const tlm_status status = plan(model, options, &planned);
    if (status != TLM_OK)
        return status;
    if (planned.bytes >= TLM_TOO_MUCH)
        return TLM_ERROR_MEMORY;
    *size = planned.bytes;
    return TLM_OK;
}

tlm_status tlm_context_make(const tlm_model *model, const tlm_options *options, void *memory,
                            size_t size, tlm_context **out)
{
    tlm_context *context = memory;
    tlm_context planned;
    tlm_status status = plan(model, options, &planned);
    if (status != TLM_OK)
        return status;
    if (size < planned.bytes)
        return TLM_ERROR_MEMORY;
    *context = planned;
    lay_out(context, (unsigned char *)memory + tlm_scratch_bytes(1, sizeof *context));
    tlm_preview_build(&context->engine, &model->output.bias, &context->preview, context->scratch);
    if (options != NULL && options->threads > 1) {
        context->engine.pool = tlm_pool_open(options->threads);
        if (context->engine.pool == NULL)
            return TLM_ERROR_MEMORY;
    }
    *out = context;
    return TLM_OK;
}

tlm_status tlm_context_open_in(const tlm_model *model, const tlm_options *options, void *memory,
                               size_t memory_size, tlm_context **out)
{
    size_t size;
    if (out == NULL)
        return TLM_ERROR_ARGUMENT;
    *out = NULL;
    if (memory == NULL || (uintptr_t)memory % TLM_SCRATCH_STEP != 0 ||
        (options != NULL && options->threads > 1))
        return TLM_ERROR_ARGUMENT;
    const tlm_status status = tlm_context_size(model, options, &size);
    if (status != TLM_OK)
        return status;
    if (memory_size < size)
        return TLM_ERROR_MEMORY;
    memset(memory, 0, size);
    return tlm_context_make(model, options, memory, size, out);
}

const char *tlm_context_kernels(const tlm_context *context)
{
    return context == NULL ? "" : context->engine.kernels->name;
}

size_t tlm_context_bytes(const tlm_context *context)
{
    return context == NULL ? 0 : context->bytes;
}

tlm_status tlm_step_many(tlm_context *c, uint32_t count, void *const *states,
                         const uint32_t *tokens)
{
    if (c == NULL || states == NULL || tokens == NULL || count > c->batch)
        return TLM_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++)
        if (tokens[i] >= c->model->vocabulary_size || states[i] == NULL ||
            (uintptr_t)states[i] % sizeof(float) != 0)
            return TLM_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++)
        tlm_look_up(c->model->embedding, tokens[i], c->vectors + i * c->vector_width, c->scratch);
    if (count != 0)
        tlm_run_cells(c, count, states);
    return TLM_OK;
}

tlm_status tlm_step(tlm_context *context, void *state, uint32_t token)
{
    return tlm_step_many(context, 1, &state, &token);
}
