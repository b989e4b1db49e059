#include "model.h"

static const struct {
    const char *name;
    uint8_t gates;
    bool may_project;
    bool must_project;
} CELLS[] = {
    [TLM_LSTM] = {"lstm", 4, true, false},
    [TLM_GRU] = {"gru", 3, false, false},
    [TLM_RNN_TANH] = {"rnn_tanh", 1, false, false},
    [TLM_RNN_RELU] = {"rnn_relu", 1, false, false},
    [TLM_PROJECTED_GRU] = {"projected_gru", 1, true, true},
    [TLM_PROJECTED_RNN_TANH] = {"projected_rnn_tanh", 1, true, true},
    [TLM_PROJECTED_RNN_RELU] = {"projected_rnn_relu", 1, true, true},
};
#define CELL_COUNT (sizeof CELLS / sizeof CELLS[0])
#define LARGEST_DIVISION 1024

const char *tlm_cell_name(tlm_cell cell)
{
    return CELLS[cell].name;
}

uint32_t tlm_cell_gates(tlm_cell cell)
{
    return CELLS[cell].gates;
}

static tlm_status check_keys(const tlm_reader *reader, tlm_json config)
{
    static const char *const known[] = {"cell", "hidden", "embedding", "projection", "tied",
                                        "output", "cutoffs", "division", "cluster_sizes",
                                        "output_bias"};
    tlm_json_walk walk = tlm_json_walk_of(config);
    tlm_json key, value;
    while (tlm_json_next(&walk, &key, &value)) {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && !tlm_json_equals(key, known[i])) {
            i++;
        }
        if (i == sizeof known / sizeof known[0]) {
            return tlm_fail(reader->fault, TLM_ERROR_VERSION, "config: %.*s is unknown",
                            tlm_shown_size(key), tlm_shown(key));
        }
    }
    return TLM_OK;
}

static tlm_status read_cell(const tlm_reader *reader, tlm_json config, tlm_cell *out)
{
    tlm_json cell;
    tlm_status status = tlm_find_field(reader, config, "cell", &cell);
    if (status != TLM_OK) {
        return status;
    }
    for (size_t i = 0; i < CELL_COUNT; i++) {
        if (tlm_json_equals(cell, CELLS[i].name)) {
            *out = (tlm_cell)i;
            return TLM_OK;
        }
    }
    return tlm_fail(reader->fault, TLM_ERROR_VERSION,
                    "config: cell is %.*s, which is unknown; a newer terselm may know it",
                    tlm_shown_size(cell), tlm_shown(cell));
}

static bool is_missing(tlm_json value)
{
    return value.begin == NULL || tlm_json_is_null(value);
}

static tlm_status read_projection(const tlm_reader *reader, tlm_json config, tlm_config *out)
{
    tlm_json value;
    tlm_status status = tlm_find_field(reader, config, "projection", &value);
    if (status != TLM_OK) {
        return status;
    }
    if (is_missing(value)) {
        return CELLS[out->cell].must_project
                   ? tlm_refuse(reader, "projection is missing, which a %s cell needs",
                                CELLS[out->cell].name)
                   : TLM_OK;
    }
    status = tlm_read_integer(reader, config, "projection", 1, TLM_MAX_SIZE, &out->projection);
    if (status == TLM_OK && !CELLS[out->cell].may_project) {
        status = tlm_refuse(reader, "projection is given, which a %s cell has not",
                            CELLS[out->cell].name);
    }
    for (uint32_t i = 0; status == TLM_OK && i < out->layers; i++) {
        if (out->projection >= out->hidden[i]) {
            status = tlm_refuse(reader, "projection is %u, expected less than hidden[%u], %u",
                                out->projection, i, out->hidden[i]);
        }
    }
    return status;
}

static tlm_status read_hidden(const tlm_reader *reader, tlm_json config, tlm_config *out)
{
    size_t count;
    tlm_status status =
        tlm_read_sizes(reader, config, "hidden", 1, TLM_MAX_LAYERS, out->hidden, &count);
    for (size_t i = 0; status == TLM_OK && i < count; i++) {
        if (out->hidden[i] > TLM_MAX_SIZE) {
            status = tlm_refuse(reader, "hidden[%lu] is %u, expected at most %d",
                                tlm_shown_number(i), out->hidden[i], TLM_MAX_SIZE);
        }
    }
    out->layers = status == TLM_OK ? (uint32_t)count : 0;
    return status;
}

/* The inner sizes of the clusters: as listed, or each `division` times smaller. */
static tlm_status read_inner(const tlm_reader *reader, tlm_json config, tlm_config *out)
{
    tlm_json value;
    uint32_t division = 4;
    size_t count = out->tails;
    tlm_status status = tlm_find_field(reader, config, "division", &value);
    if (status == TLM_OK && value.begin != NULL) {
        status = tlm_read_integer(reader, config, "division", 1, LARGEST_DIVISION, &division);
    }
    if (status == TLM_OK) {
        status = tlm_find_field(reader, config, "cluster_sizes", &value);
    }
    if (status != TLM_OK) {
        return status;
    }
    if (is_missing(value)) {
        uint32_t inner = out->output_size;
        for (uint32_t i = 0; i < out->tails; i++) {
            out->inner[i] = inner /= division;
        }
    } else {
        status = tlm_read_sizes(reader, config, "cluster_sizes", out->tails, out->tails,
                                out->inner, &count);
    }
    for (uint32_t i = 0; status == TLM_OK && i < out->tails; i++) {
        if (out->inner[i] == 0 || out->inner[i] > TLM_MAX_SIZE) {
            status = tlm_refuse(reader, "cutoffs, division or cluster_sizes give cluster %u an "
                                "inner size of %u", i, out->inner[i]);
        }
    }
    return status;
}

static tlm_status read_output(const tlm_reader *reader, tlm_json config, tlm_config *out)
{
    tlm_json value;
    size_t count = 0;
    tlm_status status = tlm_find_field(reader, config, "output", &value);
    if (status != TLM_OK) {
        return status;
    }
    out->adaptive = tlm_json_equals(value, "adaptive");
    if (!out->adaptive && value.begin != NULL && !tlm_json_equals(value, "softmax")) {
        return tlm_fail(reader->fault, TLM_ERROR_VERSION,
                        "config: output is %.*s, which is unknown; a newer terselm may know it",
                        tlm_shown_size(value), tlm_shown(value));
    }
    status = tlm_find_field(reader, config, "cutoffs", &value);
    if (status == TLM_OK && (value.begin != NULL || out->adaptive)) {
        status = tlm_read_sizes(reader, config, "cutoffs", out->adaptive ? 1 : 0,
                                out->adaptive ? TLM_MAX_TAILS : 0, out->cutoffs, &count);
    }
    if (status != TLM_OK || !out->adaptive) {
        return status;
    }
    out->tails = (uint32_t)count;
    if (out->tied) {
        return tlm_refuse(reader, "tied is true, which an adaptive output cannot be");
    }
    for (uint32_t i = 1; i < out->tails; i++) {
        if (out->cutoffs[i - 1] >= out->cutoffs[i]) {
            return tlm_refuse(reader, "cutoffs do not rise");
        }
    }
    return read_inner(reader, config, out);
}

static tlm_status read_bias_type(const tlm_reader *reader, tlm_json config, tlm_config *out)
{
    tlm_json value;
    tlm_status status = tlm_find_field(reader, config, "output_bias", &value);
    out->half_bias = tlm_json_equals(value, "float16");
    if (status == TLM_OK && !out->half_bias && value.begin != NULL &&
        !tlm_json_equals(value, "float32")) {
        status = tlm_refuse(reader, "output_bias is %.*s, expected float32 or float16",
                            tlm_shown_size(value), tlm_shown(value));
    }
    return status;
}

tlm_status tlm_read_config(tlm_reader *reader, tlm_json config, tlm_config *out)
{
    memcpy(reader->name, "config", sizeof "config");
    memset(out, 0, sizeof *out);
    if (!tlm_json_is_object(config)) {
        return tlm_refuse(reader, "is not a JSON object");
    }
    tlm_status status = check_keys(reader, config);
    if (status == TLM_OK) {
        status = read_cell(reader, config, &out->cell);
    }
    if (status == TLM_OK) {
        status = read_hidden(reader, config, out);
    }
    if (status == TLM_OK) {
        status =
            tlm_read_integer(reader, config, "embedding", 1, TLM_MAX_SIZE, &out->embedding);
    }
    if (status == TLM_OK) {
        status = read_projection(reader, config, out);
    }
    if (status == TLM_OK) {
        status = tlm_read_flag(reader, config, "tied", NULL, &out->tied);
    }
    if (status == TLM_OK) {
        status = read_bias_type(reader, config, out);
    }
    if (status != TLM_OK) {
        return status;
    }
    out->output_size = out->projection != 0 ? out->projection : out->hidden[out->layers - 1];
    return read_output(reader, config, out);
}
