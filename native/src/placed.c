/* Blocks at places of their own: products and single rows. No block has more rows or columns than
   the whole. */
#include "kernels_inside.h"
#include "product.h"

static float scale_of(const tlm_placed_blocks *m, uint32_t block)
{
    return m->scales == NULL ? 1.0f : m->scales[block];
}

static uint32_t band_height(const tlm_placed_blocks *m, uint32_t block)
{
    return m->blocks[block].out / m->bands;
}

size_t tlm_placed_room(const tlm_matrix *w, uint32_t count)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    size_t most = 0;
    for (uint32_t b = 0; b < m->count; b++)
        most = tlm_most(most, tlm_apply_room(&m->blocks[b], count));
    most = tlm_plus(most, tlm_scratch_bytes(count, sizeof(float *)));
    return tlm_plus(most, tlm_scratch_bytes(
                              count, tlm_padded_floats(w->out) * sizeof(float)));
}

void tlm_placed_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                         uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    const size_t width = tlm_padded_floats(w->out), height = w->out / m->bands;
    float *part = tlm_scratch_take(&scratch, count, width * sizeof *part);
    const float **vectors = tlm_scratch_take(&scratch, count, sizeof *vectors);
    for (uint32_t i = 0; i < count; i++)
        memset(y + i * stride, 0, w->out * sizeof *y);
    for (uint32_t b = 0; b < m->count; b++) {
        const uint32_t high = band_height(m, b);
        const float scale = scale_of(m, b);
        /* Each block rounds its own part of the input. */
        for (uint32_t i = 0; i < count; i++)
            vectors[i] = in[i].x + m->places[2 * b + 1];
        tlm_apply(engine, &m->blocks[b], vectors, count, part, width, scratch);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t k = 0; k < m->bands; k++)
                tlm_add_scaled(y + i * stride + k * height + m->places[2 * b],
                               part + i * width + (size_t)k * high, scale, high);
    }
}

size_t tlm_placed_look_up_room(const tlm_matrix *w)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    size_t most = 0;
    for (uint32_t b = 0; b < m->count; b++)
        most = tlm_most(most, tlm_look_up_room(&m->blocks[b]));
    return tlm_plus(most,
                    tlm_scratch_bytes(tlm_padded_floats(w->in), sizeof(float)));
}

void tlm_placed_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    const uint32_t height = w->out / m->bands, band = row / height, inside = row % height;
    float *part = tlm_scratch_take(&scratch, tlm_padded_floats(w->in), sizeof *part);
    memset(out, 0, w->in * sizeof *out);
    for (uint32_t b = 0; b < m->count; b++) {
        const uint32_t high = band_height(m, b), at = inside - m->places[2 * b];
        if (at >= high) /* also where it lies before the block */
            continue;
        tlm_look_up(&m->blocks[b], band * high + at, part, scratch);
        tlm_add_scaled(out + m->places[2 * b + 1], part, scale_of(m, b), m->blocks[b].in);
    }
}

size_t tlm_placed_combine_room(const tlm_matrix *w)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    size_t most = 0;
    for (uint32_t b = 0; b < m->count; b++)
        most = tlm_most(most, tlm_combine_room(&m->blocks[b]));
    return tlm_plus(most, tlm_scratch_bytes(w->out, sizeof(float)));
}

void tlm_placed_combine(const tlm_matrix *w, const float *weights, float *out, tlm_scratch scratch)
{
    const tlm_placed_blocks *m = &w->u.placed_blocks;
    const uint32_t height = w->out / m->bands;
    float *own = tlm_scratch_take(&scratch, w->out, sizeof *own);
    for (uint32_t b = 0; b < m->count; b++) {
        const uint32_t high = band_height(m, b);
        memset(own, 0, m->blocks[b].out * sizeof *own);
        for (uint32_t k = 0; k < m->bands; k++)
            tlm_add_scaled(own + k * high, weights + (size_t)k * height + m->places[2 * b],
                           scale_of(m, b), high);
        tlm_combine(&m->blocks[b], own, out + m->places[2 * b + 1], scratch);
    }
}
