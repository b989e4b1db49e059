/* The forms that are made of blocks. */
#include <stdio.h>

#include "reader.h"

/* Read children block0, block1, ... */
static tlm_status read_parts(tlm_reader *reader, tlm_json spec, tlm_matrix **out, uint32_t *count)
{
    tlm_status status = tlm_read_integer(reader, spec, "blocks", 1, TLM_MAX_BLOCKS, count);
    if (status == TLM_OK) {
        status = tlm_take_matrices(reader, *count, out);
    }
    for (uint32_t i = 0; status == TLM_OK && i < *count; i++) {
        char key[16];
        snprintf(key, sizeof key, "block%u", (unsigned)i);
        status = tlm_read_child(reader, spec, key, &(*out)[i]);
    }
    return status;
}

/* Read blocks whose rows together are those of the matrix. */
static tlm_status read_blocks(tlm_reader *reader, tlm_json spec, const tlm_matrix *matrix,
                              tlm_matrix **out, uint32_t *count)
{
    tlm_status status = read_parts(reader, spec, out, count);
    uint64_t rows = 0;
    for (uint32_t i = 0; status == TLM_OK && i < *count; i++) {
        if ((*out)[i].in != matrix->in) {
            return tlm_refuse(reader, "shape has %u columns, block%u has %u", matrix->in, i,
                              (*out)[i].in);
        }
        rows += (*out)[i].out;
    }
    if (status == TLM_OK && rows != matrix->out) {
        return tlm_refuse(reader, "shape has %u rows, its blocks have %lu", matrix->out,
                          tlm_shown_number(rows));
    }
    return status;
}

tlm_status tlm_read_row_blocks(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_matrix *blocks;
    uint32_t count;
    tlm_status status = read_blocks(reader, spec, matrix, &blocks, &count);
    if (status == TLM_OK) {
        matrix->u.row_blocks.blocks = blocks;
        matrix->u.row_blocks.count = count;
    }
    return status;
}

tlm_status tlm_read_grouped_rows(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_matrix *blocks;
    uint32_t count, heights[TLM_MAX_BLOCKS] = {0};
    const void *data;
    tlm_status status = tlm_read_tensor(reader, "groups", TLM_U8, matrix->out, &data);
    if (status == TLM_OK) {
        status = read_blocks(reader, spec, matrix, &blocks, &count);
    }
    if (status != TLM_OK) {
        return status;
    }
    const uint8_t *groups = data;
    uint32_t *place = tlm_arena_take(reader->arena, matrix->out, sizeof *place);
    if (place == NULL) {
        return tlm_fail(reader->fault, TLM_ERROR_MEMORY, "%s: no memory for groups",
                        reader->name);
    }
    for (uint32_t row = 0; row < matrix->out; row++) {
        if (groups[row] >= count) {
            return tlm_refuse(reader, "tensor groups puts row %u in block %u, there are %u", row,
                              groups[row], count);
        }
        place[row] = heights[groups[row]]++;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (heights[i] != blocks[i].out) {
            return tlm_refuse(reader, "tensor groups names %u rows of block%u, which has %u",
                              heights[i], i, blocks[i].out);
        }
    }
    matrix->u.grouped_rows.blocks = blocks;
    matrix->u.grouped_rows.groups = groups;
    matrix->u.grouped_rows.place = place;
    matrix->u.grouped_rows.count = count;
    return TLM_OK;
}

/* Whether the blocks lie in rows, or columns, [0, size) and leave none of them out. */
static bool fill(const tlm_placed_blocks *m, uint32_t column, uint32_t size)
{
    uint64_t end = 0, last = 0;
    /* As many rounds as blocks: each finds the furthest that begins where all is filled so far. */
    for (uint32_t i = 0; i < m->count * m->count; i++) {
        const uint32_t b = i % m->count;
        const uint64_t start = m->places[2 * b + column];
        const uint64_t stop =
            start + (column ? m->blocks[b].in : m->blocks[b].out / m->bands);
        end = start <= end && stop > end ? stop : end;
        last = stop > last ? stop : last;
    }
    return end == size && last == size;
}

tlm_status tlm_read_placed_blocks(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_matrix *blocks;
    uint32_t count, bands;
    size_t found;
    const bool plain = false;
    bool scaled;
    const void *scales = NULL;
    tlm_status status = read_parts(reader, spec, &blocks, &count);
    if (status == TLM_OK) {
        status = tlm_read_integer(reader, spec, "bands", 1, matrix->out, &bands);
    }
    if (status == TLM_OK) {
        status = tlm_read_flag(reader, spec, "scaled", &plain, &scaled);
    }
    if (status == TLM_OK && scaled) {
        status = tlm_read_finite(reader, "scales", TLM_F32, count, &scales);
    }
    if (status != TLM_OK) {
        return status;
    }
    const size_t numbers = 2 * (size_t)count;
    uint32_t *places = tlm_arena_take(reader->arena, numbers, sizeof *places);
    if (places == NULL) {
        return tlm_refuse(reader, "has more parts than are described");
    }
    status = tlm_read_integers(reader, spec, "places", 0, numbers, numbers, places, &found);
    if (status != TLM_OK) {
        return status;
    }
    tlm_placed_blocks *m = &matrix->u.placed_blocks;
    *m = (tlm_placed_blocks){blocks, places, scales, count, bands};
    uint32_t rest = matrix->out % bands;
    for (uint32_t i = 0; i < count; i++) {
        rest |= blocks[i].out % bands;
    }
    if (rest != 0) {
        return tlm_refuse(reader, "bands is %u, not a divisor of all rows", bands);
    }
    if (!fill(m, 0, matrix->out / bands) || !fill(m, 1, matrix->in)) {
        return tlm_refuse(reader, "places leave some of shape out");
    }
    return TLM_OK;
}
