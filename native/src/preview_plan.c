/* What a preview of an output layer is made of, whether there can be one, and whether it pays. */
#include "model.h"
#include "preview.h"

enum { GROUP = 64, SHARE_GROUP = 16, DIRECTIONS = 32 };

static uint32_t blocks_of(const tlm_matrix *w)
{
    return w->form == TLM_ROW_BLOCKS     ? w->u.row_blocks.count
           : w->form == TLM_GROUPED_ROWS ? w->u.grouped_rows.count
                                         : 1;
}

const tlm_matrix *tlm_preview_block(const tlm_preview *p, uint32_t number)
{
    const tlm_matrix *w = p->weight;
    return w->form == TLM_ROW_BLOCKS     ? &w->u.row_blocks.blocks[number]
           : w->form == TLM_GROUPED_ROWS ? &w->u.grouped_rows.blocks[number]
                                         : w;
}

uint32_t tlm_preview_row(const tlm_preview *p, uint32_t word)
{
    const tlm_matrix *w = p->weight;
    uint32_t row = 0, b = 0;
    if (w->form == TLM_GROUPED_ROWS) {
        for (; b < w->u.grouped_rows.groups[word]; b++)
            row += tlm_filled_up(w->u.grouped_rows.blocks[b].out);
        return row + w->u.grouped_rows.place[word];
    }
    for (; word >= tlm_preview_block(p, b)->out; b++) {
        row += tlm_filled_up(tlm_preview_block(p, b)->out);
        word -= tlm_preview_block(p, b)->out;
    }
    return row + word;
}

static double value_bytes(const tlm_stored_values *v)
{
    return v->bits != 0 ? v->bits / 8.0 : v->half ? 2 : 4;
}

/* About how many bytes a leaf stores; negative for other forms. */
static double stored_bytes(const tlm_matrix *w)
{
    const double rows = w->out, numbers = rows * w->in;
    switch (w->form) {
    case TLM_DENSE: return numbers * (w->u.dense.half ? 2 : 4);
    case TLM_QUANTIZED:
        return numbers * w->u.quantized.bits / 8 + (w->u.quantized.group ? 2 * rows * w->u.quantized.groups : 0);
    case TLM_CODEBOOK: return numbers * w->u.codebook.bits / 8;
    case TLM_BINARY_CODES:
        return w->u.binary_codes.bits * (numbers / 8 + 2 * rows * w->u.binary_codes.groups);
    case TLM_PRODUCT_CODES:
        return rows * w->u.product_codes.blocks / (w->u.product_codes.count == 16 ? 2 : 1);
    case TLM_SPARSE:
    case TLM_SPARSE_QUANTIZED:
        return w->u.sparse.count * (1 + value_bytes(&w->u.sparse.stored));
    case TLM_BLOCK_SPARSE:
    case TLM_BLOCK_SPARSE_QUANTIZED:
        return (double)w->u.block_sparse.kept * w->u.block_sparse.high * w->u.block_sparse.wide *
               value_bytes(&w->u.block_sparse.stored);
    default: return -1;
    }
}

static tlm_matrix codes_matrix(uint32_t rows, uint32_t columns, uint32_t bits, uint32_t group)
{
    tlm_matrix m = {.form = TLM_QUANTIZED, .out = rows, .in = columns};
    m.u.quantized.bits = (uint8_t)bits;
    m.u.quantized.group = group;
    m.u.quantized.groups = (columns - 1) / group + 1;
    m.u.quantized.mid_rise = bits != 8;
    return m;
}

tlm_status tlm_preview_plan(const tlm_model *model, const tlm_options *options, tlm_preview *p)
{
    *p = (tlm_preview){.fast = options->preview_mode == TLM_PREVIEW_FAST, .integers = true};
    if (options->preview == 0 && options->preview_mode == TLM_PREVIEW_EXACT)
        return TLM_OK;
    const tlm_matrix *w = model->output.weight;
    if (options->preview < 2 || options->preview > 4 || w == NULL ||
        (options->preview_mode != TLM_PREVIEW_EXACT && !p->fast))
        return TLM_ERROR_ARGUMENT;
    while (w->form == TLM_LOW_RANK)
        w = w->u.low_rank.left;
    p->weight = w;
    double stored = 0;
    uint64_t rows = 0;
    bool counted = false; /* whether a few rows take as long as all: places are counted anew */
    for (uint32_t b = 0; b < blocks_of(w); b++) {
        const tlm_matrix *block = tlm_preview_block(p, b);
        const double bytes = stored_bytes(block);
        if (bytes < 0)
            return TLM_ERROR_ARGUMENT;
        counted = counted || block->form == TLM_BLOCK_SPARSE ||
                  block->form == TLM_BLOCK_SPARSE_QUANTIZED;
        stored += bytes;
        rows += tlm_filled_up(block->out);
        p->integers = p->integers && tlm_reads_integers(block);
    }
    const uint32_t r = DIRECTIONS;
    const double own = w->in * options->preview / 8.0 + 2.0 * ((w->in - 1) / GROUP + 1) + r +
                       2.0 * r / SHARE_GROUP + 2 * sizeof(float);
    if (counted || rows > UINT32_MAX / 2 || own * (double)rows > 0.75 * stored)
        return TLM_OK;
    p->bits = options->preview;
    p->rows = (uint32_t)rows;
    p->codes = codes_matrix(p->rows, w->in, p->bits, GROUP);
    p->shares = codes_matrix(p->rows, r, 8, SHARE_GROUP);
    p->directions = (tlm_matrix){.form = TLM_DENSE, .out = r, .in = w->in};
    return TLM_OK;
}

size_t tlm_preview_room(const tlm_preview *p, const tlm_model *model)
{
    if (p->bits == 0)
        return 0;
    const size_t row = tlm_scratch_bytes(tlm_padded_floats(p->weight->in), sizeof(float));
    const size_t share = tlm_scratch_bytes(tlm_padded_floats(DIRECTIONS), sizeof(float));
    /* What reading keeps: every vector on the way to the last factor, and three inputs. */
    size_t reading = tlm_plus(tlm_times(3, tlm_prepare_room(p->weight->in, 1)), tlm_plus(row, share));
    size_t inside = tlm_apply_room(model->output.projection, 1);
    reading = tlm_plus(reading, tlm_scratch_bytes(tlm_padded_floats(model->output.weight->in), sizeof(float)));
    for (const tlm_matrix *w = model->output.weight; w->form == TLM_LOW_RANK; w = w->u.low_rank.left) {
        inside = tlm_most(inside, tlm_apply_room(w->u.low_rank.right, 1));
        reading = tlm_plus(reading, tlm_scratch_bytes(tlm_padded_floats(w->u.low_rank.left->in), sizeof(float)));
    }
    const size_t building = tlm_plus(tlm_times(DIRECTIONS + 1, row), tlm_times(2, share));
    return tlm_most(tlm_plus(reading, inside), building);
}

