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

/* Whether spans of `sizes` numbers from `starts` on lie in [0, size) and leave nothing out. */
static bool fills(const uint32_t *starts, const uint32_t *sizes, uint32_t count, uint32_t size)
{
    uint64_t end = 0;
    for (uint32_t round = 0; round < count && end < size; round++) {
        uint64_t next = end;
        for (uint32_t i = 0; i < count; i++) {
            const uint64_t stop = (uint64_t)starts[i] + sizes[i];
            next = starts[i] <= end && stop > next ? stop : next;
        }
        end = next;
    }
    bool inside = true;
    for (uint32_t i = 0; i < count; i++) {
        inside = inside && (uint64_t)starts[i] + sizes[i] <= size;
    }
    return inside && end == size;
}

/* Check that the blocks, at their places, fill the matrix. */
static tlm_status check_places(const tlm_reader *reader, const tlm_matrix *matrix)
{
    const tlm_placed_blocks *m = &matrix->u.placed_blocks;
    uint32_t heights[TLM_MAX_BLOCKS], widths[TLM_MAX_BLOCKS];
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->blocks[i].out % m->bands != 0) {
            return tlm_refuse(reader, "bands is %u, block%u has %u rows", m->bands, i,
                              m->blocks[i].out);
        }
        heights[i] = m->blocks[i].out / m->bands;
        widths[i] = m->blocks[i].in;
    }
    if (matrix->out % m->bands != 0) {
        return tlm_refuse(reader, "bands is %u, shape has %u rows", m->bands, matrix->out);
    }
    if (!fills(m->rows, heights, m->count, matrix->out / m->bands)) {
        return tlm_refuse(reader, "places do not fill the %u rows of a band",
                          matrix->out / m->bands);
    }
    if (!fills(m->columns, widths, m->count, matrix->in)) {
        return tlm_refuse(reader, "places do not fill the %u columns of shape", matrix->in);
    }
    return TLM_OK;
}

tlm_status tlm_read_placed_blocks(tlm_reader *reader, tlm_json spec, tlm_matrix *matrix)
{
    tlm_matrix *blocks;
    uint32_t count, bands, places[2 * TLM_MAX_BLOCKS];
    size_t found;
    const bool plain = false;
    bool scaled;
    const void *scales = NULL;
    tlm_status status = read_parts(reader, spec, &blocks, &count);
    if (status == TLM_OK) {
        status = tlm_read_integer(reader, spec, "bands", 1, matrix->out, &bands);
    }
    if (status == TLM_OK) {
        status = tlm_read_integers(reader, spec, "places", 0, 2 * (size_t)count,
                                   2 * (size_t)count, places, &found);
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
    uint32_t *rows = tlm_arena_take(reader->arena, 2 * (size_t)count, sizeof *rows);
    if (rows == NULL) {
        return tlm_refuse(reader, "has more parts than are described");
    }
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = places[2 * i];
        rows[count + i] = places[2 * i + 1];
    }
    matrix->u.placed_blocks = (tlm_placed_blocks){blocks, rows, rows + count, scales, count, bands};
    return check_places(reader, matrix);
}
