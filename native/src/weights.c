/* Which matrices and biases a model has, and of which shapes. */
#include "model.h"
#include "work.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is being read: the model's name for it goes into reader->name. */
typedef struct weights {
    tlm_reader *reader;
    tlm_json described;
} weights;

static void set_name(tlm_reader *reader, const char *format, va_list arguments)
{
    if (vsnprintf(reader->name, sizeof reader->name, format, arguments) < 0) {
        reader->name[0] = '\0';
    }
}

/* Read the matrix of this name and check its shape. */
static TLM_PRINTF(5, 6) tlm_status read_weight(const weights *w, const tlm_matrix **out,
                                               uint64_t rows, uint64_t columns,
                                               const char *format, ...)
{
    tlm_reader *reader = w->reader;
    va_list arguments;
    va_start(arguments, format);
    set_name(reader, format, arguments);
    va_end(arguments);
    tlm_status status = tlm_count_search(reader, w->described);
    if (status != TLM_OK) {
        return status;
    }
    tlm_json spec;
    tlm_json_found found = tlm_json_find(w->described, reader->name, &spec);
    if (found != TLM_JSON_FOUND) {
        return tlm_refuse(reader, found == TLM_JSON_TWICE ? "is there twice in weights"
                                                          : "is missing in weights");
    }
    tlm_matrix *matrix = tlm_arena_take(reader->arena, 1, sizeof *matrix);
    if (matrix == NULL) {
        return tlm_fail(reader->fault, TLM_ERROR_MEMORY, "%s: no memory", reader->name);
    }
    status = tlm_read_matrix(reader, spec, matrix);
    if (status == TLM_OK && (matrix->out != rows || matrix->in != columns)) {
        status = tlm_refuse(reader, "shape is [%u, %u], the config needs [%lu, %lu]",
                            matrix->out, matrix->in, tlm_shown_number(rows),
                            tlm_shown_number(columns));
    }
    reader->matrices++;
    *out = matrix;
    return status;
}

static TLM_PRINTF(5, 6) tlm_status read_bias(const weights *w, const float **out, uint64_t size,
                                             const char *part, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_name(w->reader, format, arguments);
    va_end(arguments);
    const void *data;
    tlm_status status = tlm_read_finite(w->reader, part, TLM_F32, size, &data);
    *out = status == TLM_OK ? data : NULL;
    return status;
}

static tlm_status read_output_bias(const weights *w, const tlm_config *config, tlm_bias *out,
                                   uint64_t size)
{
    memcpy(w->reader->name, "output", sizeof "output");
    out->half = config->half_bias;
    return tlm_read_finite(w->reader, "bias", out->half ? TLM_F16 : TLM_F32, size, &out->values);
}

static tlm_status read_layer(const weights *w, const tlm_config *config, unsigned number,
                             tlm_layer *layer)
{
    uint64_t rows = (uint64_t)tlm_cell_gates(config->cell) * layer->hidden;
    uint64_t gates = 2 * (uint64_t)layer->output;
    bool gru = config->cell == TLM_GRU, projected_gru = config->cell == TLM_PROJECTED_GRU;
    tlm_status status = TLM_OK;
    if (projected_gru) {
        status = read_weight(w, &layer->gates_ih, gates, layer->input, "cells.%u.gates_ih",
                             number);
        if (status == TLM_OK) {
            status = read_weight(w, &layer->gates_hh, gates, layer->output, "cells.%u.gates_hh",
                                 number);
        }
        if (status == TLM_OK) {
            status = read_bias(w, &layer->gates_bias, gates, "gates_bias", "cells.%u", number);
        }
    }
    if (status == TLM_OK) {
        status = read_weight(w, &layer->weight_ih, rows, layer->input, "cells.%u.weight_ih",
                             number);
    }
    if (status == TLM_OK) {
        status = read_weight(w, &layer->weight_hh, rows, layer->output, "cells.%u.weight_hh",
                             number);
    }
    if (status == TLM_OK && config->projection != 0) {
        status = read_weight(w, &layer->weight_hr, layer->output, layer->hidden,
                             "cells.%u.weight_hr", number);
    }
    if (status == TLM_OK) {
        status = read_bias(w, &layer->bias, rows, "bias", "cells.%u", number);
    }
    if (status == TLM_OK && gru) {
        status = read_bias(w, &layer->bias_hn, layer->hidden, "bias_hn", "cells.%u", number);
    }
    return status;
}

static tlm_status read_softmax(const weights *w, tlm_model *model)
{
    const tlm_config *config = &model->config;
    tlm_output *output = &model->output;
    tlm_status status = TLM_OK;
    if (config->tied) {
        output->weight = model->embedding;
        if (config->embedding != config->output_size) {
            status = read_weight(w, &output->projection, config->embedding, config->output_size,
                                 "output_projection");
        }
    } else {
        status = read_weight(w, &output->weight, model->vocabulary_size, config->output_size,
                             "output");
    }
    if (status == TLM_OK) {
        status = read_output_bias(w, config, &output->bias, model->vocabulary_size);
    }
    return status;
}

/* Read the ids by frequency; each must be there once. */
static tlm_status read_order(const weights *w, tlm_model *model)
{
    tlm_reader *reader = w->reader;
    uint32_t size = model->vocabulary_size;
    bool wide = size > 65536;
    const void *data;
    memcpy(reader->name, "output", sizeof "output");
    tlm_status status = tlm_read_tensor(reader, "order", wide ? TLM_U32 : TLM_U16, size, &data);
    if (status != TLM_OK) {
        return status;
    }
    const tlm_numbers ids = {data, wide};
    uint32_t bad;
    status = tlm_permutation_read(reader->arena, ids, size, &model->output.order, &bad);
    if (status == TLM_ERROR_MODEL) {
        return tlm_refuse(reader, "tensor order does not hold every id once: place %u has %u",
                          bad, tlm_number(ids, bad));
    }
    return status == TLM_OK
               ? status
               : tlm_fail(reader->fault, status, "output: no memory for order");
}

static tlm_status read_adaptive(const weights *w, tlm_model *model)
{
    const tlm_config *config = &model->config;
    tlm_output *output = &model->output;
    uint32_t last = config->cutoffs[config->tails - 1];
    uint64_t head = (uint64_t)config->cutoffs[0] + config->tails;
    if (last >= model->vocabulary_size) {
        return tlm_fail(w->reader->fault, TLM_ERROR_MODEL,
                        "config: cutoffs reach %u, the vocabulary has %u tokens", last,
                        model->vocabulary_size);
    }
    tlm_status status =
        read_weight(w, &output->head, head, config->output_size, "output.head");
    for (uint32_t i = 0; status == TLM_OK && i < config->tails; i++) {
        uint32_t end =
            i + 1 < config->tails ? config->cutoffs[i + 1] : model->vocabulary_size;
        tlm_tail *tail = &output->tails[i];
        status = read_weight(w, &tail->down, config->inner[i], config->output_size,
                             "output.tails.%u.down", (unsigned)i);
        if (status == TLM_OK) {
            status = read_weight(w, &tail->words, end - config->cutoffs[i], config->inner[i],
                                 "output.tails.%u.words", (unsigned)i);
        }
    }
    if (status == TLM_OK) {
        status = read_output_bias(w, config, &output->bias, head);
    }
    return status == TLM_OK ? read_order(w, model) : status;
}

tlm_status tlm_read_weights(tlm_reader *reader, tlm_json described, tlm_model *model)
{
    const tlm_config *config = &model->config;
    weights w = {reader, described};
    if (!tlm_json_is_object(described)) {
        return tlm_fail(reader->fault, TLM_ERROR_MODEL, "weights is not a JSON object");
    }
    tlm_status status = read_weight(&w, &model->embedding, model->vocabulary_size,
                                    config->embedding, "embedding");
    if (status == TLM_OK && tlm_look_up_work(model->embedding) > TLM_MOST_WORK) {
        status = tlm_refuse(reader, "a row needs %lu multiplications, more than %lu",
                            tlm_shown_number(tlm_look_up_work(model->embedding)),
                            tlm_shown_number(TLM_MOST_WORK));
    }
    if (status == TLM_OK) {
        model->layers = tlm_arena_take(reader->arena, config->layers, sizeof *model->layers);
        status = model->layers != NULL
                     ? status
                     : tlm_fail(reader->fault, TLM_ERROR_MEMORY, "no memory for %u layers",
                                config->layers);
    }
    uint32_t incoming = config->embedding;
    for (uint32_t i = 0; status == TLM_OK && i < config->layers; i++) {
        tlm_layer *layer = &model->layers[i];
        layer->input = incoming;
        layer->hidden = config->hidden[i];
        layer->output = config->projection != 0 ? config->projection : layer->hidden;
        incoming = layer->output;
        status = read_layer(&w, config, i, layer);
    }
    if (status == TLM_OK) {
        status = config->adaptive ? read_adaptive(&w, model) : read_softmax(&w, model);
    }
    if (status == TLM_OK && tlm_json_count(described) != reader->matrices) {
        status = tlm_fail(reader->fault, TLM_ERROR_MODEL,
                          "weights describes %lu matrices, the config needs %u",
                          tlm_shown_number(tlm_json_count(described)), reader->matrices);
    }
    model->matrices = reader->matrices;
    return status;
}
