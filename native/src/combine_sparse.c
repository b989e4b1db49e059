/* Numbers of sparse matrices, place by place. */
#include "kernels_inside.h"
#include "product.h"

/* What is done with each number: out[column] += number * weights[row], or, where `weights` is
   NULL, the numbers of `row` alone are added. */
typedef struct visit {
    const float *weights;
    float *out;
    uint32_t row;
} visit;

static float stored_number(const tlm_stored_values *m, size_t at, uint32_t row)
{
    if (m->bits == 8)
        return tlm_from_half(m->scales[row]) * (float)(int8_t)m->codes[at];
    if (m->bits == 4)
        return tlm_from_half(m->scales[row]) *
               (float)((int)((unsigned)m->codes[at / 2] >> at % 2 * 4 & 15u) - 8);
    return m->half ? tlm_from_half(((const uint16_t *)m->values)[at])
                   : ((const float *)m->values)[at];
}

static void add(const visit *v, const tlm_stored_values *stored, size_t at, uint32_t row,
                uint32_t column)
{
    if (v->weights != NULL)
        v->out[column] += v->weights[row] * stored_number(stored, at, row);
    else if (row == v->row)
        v->out[column] += stored_number(stored, at, row);
}

/* Visit the numbers of the row block that begins at `first`. */
static void visit_places(const tlm_matrix *w, uint32_t first, const visit *v)
{
    const tlm_sparse *m = &w->u.sparse;
    const uint32_t rows = tlm_rows_of_block(w, first);
    const uint32_t *starts = m->starts + 2 * (first / TLM_BLOCK_ROWS);
    const uint8_t *positions = m->positions + starts[1];
    size_t value = starts[0];
    if (m->coding == TLM_BITMAP) {
        for (uint32_t column = 0; column < w->in; column++)
            for (uint32_t r = 0; r < rows; r += 8) {
                unsigned byte = *positions++;
                for (uint32_t at = r; byte; at++, byte >>= 1)
                    if (byte & 1u)
                        add(v, &m->stored, value++, first + at, column);
            }
        return;
    }
    const unsigned greatest = m->coding == TLM_GAPS4 ? 15 : 255;
    const size_t codes = (size_t)(starts[3] - starts[1]) * (greatest == 15 ? 2 : 1);
    uint32_t r = 0, column = 0;
    for (size_t c = 0; c < codes && value < starts[2]; c++) {
        const unsigned code =
            greatest == 15 ? (unsigned)positions[c / 2] >> c % 2 * 4 & 15u : positions[c];
        for (r += code; r >= rows; r -= rows)
            column++;
        if (code == greatest)
            continue;
        add(v, &m->stored, value++, first + r, column);
        if (++r == rows) {
            r = 0;
            column++;
        }
    }
}

/* Where a walk through stored blocks is: blocks before it, and its place in the bitmap. */
typedef struct place {
    size_t stored;
    size_t bit;
} place;

/* Visit the numbers of the stored blocks among rows [first, first + high); go on to the next. */
static void visit_blocks(const tlm_matrix *w, uint32_t first, const visit *v, place *p)
{
    const tlm_block_sparse *m = &w->u.block_sparse;
    const uint32_t together = m->wide < 4 ? m->wide : 4;
    for (uint32_t begin = 0; begin < w->in; begin += m->wide, p->bit++) {
        if (!((unsigned)m->bitmap[p->bit / 8] >> p->bit % 8 & 1u))
            continue;
        const size_t at = p->stored++ * (size_t)m->high * m->wide;
        for (uint32_t c = 0; c < m->wide && begin + c < w->in; c++)
            for (uint32_t r = 0; r < m->high && first + r < w->out; r++)
                add(v, &m->stored, at + ((size_t)(c / together) * m->high + r) * together + c % together,
                    first + r, begin + c);
    }
}

static bool has_places(const tlm_matrix *w)
{
    return w->form == TLM_SPARSE || w->form == TLM_SPARSE_QUANTIZED;
}

void tlm_look_up_sparse(const tlm_matrix *w, uint32_t row, float *out)
{
    const visit v = {NULL, out, row};
    memset(out, 0, w->in * sizeof *out);
    if (has_places(w)) {
        visit_places(w, row / TLM_BLOCK_ROWS * TLM_BLOCK_ROWS, &v);
        return;
    }
    const uint32_t first = row / w->u.block_sparse.high * w->u.block_sparse.high;
    place p;
    p.stored = tlm_stored_before(w, first, &p.bit);
    visit_blocks(w, first, &v, &p);
}

void tlm_combine_sparse(const tlm_matrix *w, const float *weights, float *out)
{
    const visit v = {weights, out, 0};
    place p = {0, 0};
    if (has_places(w))
        for (uint32_t first = 0; first < w->out; first += TLM_BLOCK_ROWS)
            visit_places(w, first, &v);
    else
        for (uint32_t first = 0; first < w->out; first += w->u.block_sparse.high)
            visit_blocks(w, first, &v, &p);
}
