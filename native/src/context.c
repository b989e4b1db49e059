/* Making and freeing a context, stepping states. */
#include "context.h"

#include <stdlib.h>
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

/* Fill in the pointers of `c`, whose memory begins at `at`; NULL to count. Returns the bytes. */
static size_t lay_out(tlm_context *c, unsigned char *at)
{
    const size_t vectors = tlm_scratch_bytes(c->batch, c->width * sizeof(float));
    size_t all = tlm_plus(tlm_times(4, vectors),
                          tlm_scratch_bytes(c->batch, tlm_times(c->score_width, sizeof(float))));
    const size_t kept = c->model->config.output_size * sizeof(float);
    all = tlm_plus(all, tlm_plus(tlm_scratch_bytes(c->batch, kept),
                                 tlm_scratch_bytes(c->batch, sizeof(float))));
    all = tlm_plus(all, tlm_times(3, tlm_scratch_bytes(c->batch, sizeof(float *))));
    all = tlm_plus(all, tlm_preview_lay_out(&c->preview, NULL));
    const size_t scratch = scratch_of(c->model, c->batch, &c->preview);
    if (at != NULL) {
        tlm_scratch s = {at, at + all + scratch};
        c->vectors = tlm_scratch_take(&s, c->batch, c->width * sizeof(float));
        c->first = tlm_scratch_take(&s, c->batch, c->width * sizeof(float));
        c->second = tlm_scratch_take(&s, c->batch, c->width * sizeof(float));
        c->third = tlm_scratch_take(&s, c->batch, c->width * sizeof(float));
        c->scores = tlm_scratch_take(&s, c->batch, c->score_width * sizeof(float));
        c->kept = tlm_scratch_take(&s, c->batch, kept);
        c->chosen = tlm_scratch_take(&s, c->batch, sizeof(float));
        c->inputs = tlm_scratch_take(&s, c->batch, sizeof(float *));
        c->more = tlm_scratch_take(&s, c->batch, sizeof(float *));
        c->outputs = tlm_scratch_take(&s, c->batch, sizeof(float *));
        tlm_preview_lay_out(&c->preview, &s);
        c->scratch = s;
    }
    return tlm_plus(all, scratch);
}

bool tlm_can_run(const char *kernels)
{
    return kernels != NULL && tlm_kernels_named(kernels) != NULL;
}

tlm_status tlm_context_open(const tlm_model *model, const tlm_options *options, tlm_context **out)
{
    const tlm_options none = {0};
    options = options == NULL ? &none : options;
    if (out == NULL)
        return TLM_ERROR_ARGUMENT;
    *out = NULL;
    if (model == NULL || options->batch > TLM_MAX_BATCH || options->threads > 256)
        return TLM_ERROR_ARGUMENT;
    const tlm_kernels *kernels = options->kernels == NULL ? tlm_kernels_best()
                                                          : tlm_kernels_named(options->kernels);
    if (kernels == NULL)
        return TLM_ERROR_ARGUMENT;
    tlm_context sizes = {.model = model, .batch = options->batch ? options->batch : 1};
    const tlm_status planned = tlm_preview_plan(model, options, &sizes.preview);
    if (planned != TLM_OK)
        return planned;
    sizes.width = width_of(model);
    sizes.score_width = tlm_padded_floats((size_t)model->vocabulary_size + TLM_MAX_TAILS);
    const size_t head = tlm_scratch_bytes(1, sizeof(tlm_context));
    sizes.bytes = tlm_plus(tlm_plus(head, TLM_SCRATCH_STEP), lay_out(&sizes, NULL));
    unsigned char *memory = sizes.bytes >= TLM_TOO_MUCH ? NULL : calloc(1, sizes.bytes);
    if (memory == NULL)
        return TLM_ERROR_MEMORY;
    tlm_context *context = (tlm_context *)(void *)memory;
    *context = sizes;
    context->engine.kernels = kernels;
    unsigned char *at = memory + head;
    at += (TLM_SCRATCH_STEP - (uintptr_t)at % TLM_SCRATCH_STEP) % TLM_SCRATCH_STEP;
    lay_out(context, at);
    tlm_preview_build(&context->engine, model->output.bias, &context->preview, context->scratch);
    if (options->threads > 1) {
        context->engine.pool = tlm_pool_open(options->threads);
        if (context->engine.pool == NULL) {
            free(memory);
            return TLM_ERROR_MEMORY;
        }
    }
    *out = context;
    return TLM_OK;
}

void tlm_context_close(tlm_context *context)
{
    if (context != NULL) {
        tlm_pool_close(context->engine.pool);
        free(context);
    }
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
        tlm_look_up(c->model->embedding, tokens[i], c->vectors + i * c->width, c->scratch);
    if (count != 0)
        tlm_run_cells(c, count, states);
    return TLM_OK;
}

tlm_status tlm_step(tlm_context *context, void *state, uint32_t token)
{
    return tlm_step_many(context, 1, &state, &token);
}
