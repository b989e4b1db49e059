/* One step of every kind of cell, for one or several states. */
#include <string.h>

#include "context.h"

/* to += from. */
static void add(const tlm_context *c, float *to, const float *from, uint32_t size)
{
    c->engine.kernels->add_max(to, to, from, size);
}

/* rows[i] += bias for all i. */
static void add_bias(const tlm_context *c, float *rows, uint32_t count, const float *bias,
                     uint32_t size)
{
    for (uint32_t i = 0; i < count; i++)
        add(c, rows + i * c->width, bias, size);
}

/* y = w x for each vector. */
static void multiply(tlm_context *c, const tlm_matrix *w, const float *const *x, uint32_t count,
                     float *y)
{
    tlm_apply(&c->engine, w, x, count, y, c->width, c->scratch);
}

/* Outputs of a layer: the rows of `from`, or their projection, to the front of each state. */
static void put_out(tlm_context *c, const tlm_layer *layer, uint32_t count, float *from,
                    float *spare, float *const *outputs)
{
    if (layer->weight_hr != NULL) {
        for (uint32_t i = 0; i < count; i++)
            c->more[i] = from + i * c->width;
        multiply(c, layer->weight_hr, c->more, count, spare);
        from = spare;
    }
    for (uint32_t i = 0; i < count; i++)
        memcpy(outputs[i], from + i * c->width, layer->output * sizeof(float));
}

/* Both products into `first`, with the bias. */
static void gates_of(tlm_context *c, const tlm_layer *layer, uint32_t count, float *const *outputs)
{
    const uint32_t rows = layer->hidden;
    multiply(c, layer->weight_ih, c->inputs, count, c->first);
    multiply(c, layer->weight_hh, (const float *const *)outputs, count, c->second);
    add_bias(c, c->first, count, layer->bias, rows);
    for (uint32_t i = 0; i < count; i++)
        add(c, c->first + i * c->width, c->second + i * c->width, rows);
}

/* Gates input, forget, cell, output. */
static void lstm(tlm_context *c, const tlm_layer *layer, uint32_t count, float *const *outputs)
{
    multiply(c, layer->weight_ih, c->inputs, count, c->first);
    multiply(c, layer->weight_hh, (const float *const *)outputs, count, c->second);
    const bool projected = layer->weight_hr != NULL;
    for (uint32_t i = 0; i < count; i++)
        c->engine.kernels->lstm(c->first + i * c->width, c->second + i * c->width, layer->bias,
                                layer->hidden, outputs[i] + layer->output,
                                projected ? c->third + i * c->width : outputs[i]);
    if (projected)
        put_out(c, layer, count, c->third, c->first, outputs);
}

/* Gates reset, update, new; the reset gate multiplies after the recurrent product. */
static void gru(tlm_context *c, const tlm_layer *layer, uint32_t count, float *const *outputs)
{
    const uint32_t n = layer->hidden;
    const tlm_kernels *k = c->engine.kernels;
    multiply(c, layer->weight_ih, c->inputs, count, c->first);
    multiply(c, layer->weight_hh, (const float *const *)outputs, count, c->second);
    add_bias(c, c->first, count, layer->bias, 3 * n);
    for (uint32_t i = 0; i < count; i++) {
        float *x = c->first + i * c->width, *h = c->second + i * c->width, *output = outputs[i];
        add(c, x, h, 2 * n);
        k->sigmoid(x, 2 * n);
        for (uint32_t j = 0; j < n; j++)
            x[2 * n + j] += x[j] * (h[2 * n + j] + layer->bias_hn[j]);
        k->tanh(x + 2 * n, n);
        for (uint32_t j = 0; j < n; j++)
            output[j] = x[2 * n + j] + x[n + j] * (output[j] - x[2 * n + j]);
    }
}

static void rnn(tlm_context *c, const tlm_layer *layer, uint32_t count, float *const *outputs,
                bool is_tanh)
{
    gates_of(c, layer, count, outputs);
    for (uint32_t i = 0; i < count; i++) {
        float *hidden = c->first + i * c->width;
        if (is_tanh)
            c->engine.kernels->tanh(hidden, layer->hidden);
        else
            for (uint32_t j = 0; j < layer->hidden; j++)
                hidden[j] = hidden[j] > 0 ? hidden[j] : 0;
    }
    put_out(c, layer, count, c->first, c->second, outputs);
}

/* Gates reset, update of the output's size; the reset gate multiplies before the product. */
static void projected_gru(tlm_context *c, const tlm_layer *layer, uint32_t count,
                          float *const *outputs)
{
    const uint32_t r = layer->output, n = layer->hidden;
    const tlm_kernels *k = c->engine.kernels;
    multiply(c, layer->gates_ih, c->inputs, count, c->first);
    multiply(c, layer->gates_hh, (const float *const *)outputs, count, c->third);
    add_bias(c, c->third, count, layer->gates_bias, 2 * r);
    for (uint32_t i = 0; i < count; i++) {
        float *gates = c->third + i * c->width, *kept = c->second + i * c->width;
        add(c, gates, c->first + i * c->width, 2 * r);
        k->sigmoid(gates, 2 * r);
        for (uint32_t j = 0; j < r; j++)
            kept[j] = gates[j] * outputs[i][j];
        c->more[i] = kept;
    }
    multiply(c, layer->weight_hh, c->more, count, c->first);
    add_bias(c, c->first, count, layer->bias, n);
    multiply(c, layer->weight_ih, c->inputs, count, c->second);
    for (uint32_t i = 0; i < count; i++) {
        float *candidate = c->first + i * c->width;
        add(c, candidate, c->second + i * c->width, n);
        k->tanh(candidate, n);
        c->more[i] = candidate;
    }
    multiply(c, layer->weight_hr, c->more, count, c->second);
    for (uint32_t i = 0; i < count; i++) {
        const float *update = c->third + i * c->width + r, *new = c->second + i * c->width;
        for (uint32_t j = 0; j < r; j++)
            outputs[i][j] = new[j] + update[j] * (outputs[i][j] - new[j]);
    }
}

void tlm_run_cells(tlm_context *c, uint32_t count, void *const *states)
{
    const tlm_model *model = c->model;
    size_t offset = 0;
    for (uint32_t i = 0; i < count; i++)
        c->inputs[i] = c->vectors + i * c->vector_width;
    for (uint32_t number = 0; number < model->config.layers; number++) {
        const tlm_layer *layer = &model->layers[number];
        for (uint32_t i = 0; i < count; i++)
            c->outputs[i] = (float *)states[i] + offset;
        switch (model->config.cell) {
        case TLM_LSTM: lstm(c, layer, count, c->outputs); break;
        case TLM_GRU: gru(c, layer, count, c->outputs); break;
        case TLM_RNN_TANH:
        case TLM_PROJECTED_RNN_TANH: rnn(c, layer, count, c->outputs, true); break;
        case TLM_RNN_RELU:
        case TLM_PROJECTED_RNN_RELU: rnn(c, layer, count, c->outputs, false); break;
        case TLM_PROJECTED_GRU: projected_gru(c, layer, count, c->outputs); break;
        }
        for (uint32_t i = 0; i < count; i++)
            c->inputs[i] = c->outputs[i];
        offset += tlm_layer_state(model, number);
    }
}

size_t tlm_cells_room(const tlm_model *model, uint32_t batch)
{
    size_t most = 0;
    for (uint32_t i = 0; i < model->config.layers; i++) {
        const tlm_matrix *all[TLM_LAYER_MATRICES];
        tlm_layer_matrices(&model->layers[i], all);
        for (unsigned w = 0; w < TLM_LAYER_MATRICES; w++)
            most = tlm_most(most, tlm_apply_room(all[w], batch));
    }
    return most;
}
