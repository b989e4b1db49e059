/* Tensor trains: products core by core, and rows from slices of the cores. */
#include "product.h"

#include <string.h>

/* Vectors that go through a core at once. */
#define AT_ONCE 64u

/* Sizes of the step of core m: `done` rows made so far, `left` columns before those of the core. */
typedef struct stage {
    size_t done;
    size_t left;
    size_t vectors; /* that go through the core, done * left */
    size_t at_once; /* of these */
} stage;

static stage stage_of(const tlm_tensor_train *m, uint32_t core)
{
    stage s = {.done = 1, .left = 1};
    for (uint32_t i = core + 1; i < m->count; i++)
        s.done = tlm_times(s.done, m->row_shape[i]);
    for (uint32_t i = 0; i < core; i++)
        s.left = tlm_times(s.left, m->column_shape[i]);
    s.vectors = tlm_times(s.done, s.left);
    s.at_once = s.vectors < AT_ONCE ? s.vectors : AT_ONCE;
    return s;
}

/* Floats that hold the vectors between any two cores. */
static size_t largest_stage(const tlm_tensor_train *m)
{
    size_t most = 0;
    for (uint32_t core = 0; core < m->count; core++) {
        const tlm_matrix *c = &m->cores[core];
        most = tlm_most(most, tlm_times(stage_of(m, core).vectors, tlm_most(c->in, c->out)));
    }
    return most;
}

size_t tlm_train_room(const tlm_matrix *w, uint32_t count)
{
    (void)count; /* one vector after the other */
    const tlm_tensor_train *m = &w->u.tensor_train;
    size_t room = 0;
    for (uint32_t core = 0; core < m->count; core++) {
        const tlm_matrix *c = &m->cores[core];
        const size_t some = stage_of(m, core).at_once;
        const size_t own = tlm_apply_room(c, (uint32_t)some);
        const size_t results = tlm_scratch_bytes(some, tlm_padded_floats(c->out) * sizeof(float));
        room = tlm_most(room, tlm_plus(own, results));
    }
    room = tlm_plus(room, tlm_scratch_bytes(AT_ONCE, sizeof(float *)));
    return tlm_plus(room, tlm_times(2, tlm_scratch_bytes(largest_stage(m), sizeof(float))));
}

/* Put a result of core m, [rank][digit], where the next core finds its vectors: the new row digit
   before those done, the digit of column m - 1 within the vector. */
static void place(const float *result, float *to, const stage *s, size_t vector, size_t rank,
                  size_t digits, size_t next_columns)
{
    const size_t done = vector / s->left, column = vector % s->left;
    const size_t width = next_columns * rank, blocks = s->left / next_columns;
    float *at = to + (done * blocks + column / next_columns) * width + column % next_columns * rank;
    for (size_t k = 0; k < rank; k++)
        for (size_t i = 0; i < digits; i++)
            at[i * s->done * blocks * width + k] = result[k * digits + i];
}

void tlm_train_multiply(const tlm_engine *engine, const tlm_matrix *w, const tlm_input *in,
                        uint32_t count, float *y, size_t stride, tlm_scratch scratch)
{
    const tlm_tensor_train *m = &w->u.tensor_train;
    const size_t most = largest_stage(m);
    float *from = tlm_scratch_take(&scratch, most, sizeof *from);
    float *to = tlm_scratch_take(&scratch, most, sizeof *to);
    const float **vectors = tlm_scratch_take(&scratch, AT_ONCE, sizeof *vectors);
    for (uint32_t i = 0; i < count; i++) {
        memset(from, 0, most * sizeof *from);
        memcpy(from, in[i].x, w->in * sizeof *from);
        for (uint32_t core = m->count; core-- > 0;) {
            const tlm_matrix *c = &m->cores[core];
            const stage s = stage_of(m, core);
            const size_t next = core ? m->column_shape[core - 1] : 1;
            const size_t width = tlm_padded_floats(c->out);
            for (size_t first = 0; first < s.vectors; first += s.at_once) {
                const size_t rest = s.vectors - first, some = rest < s.at_once ? rest : s.at_once;
                tlm_scratch inner = scratch;
                float *results = tlm_scratch_take(&inner, s.at_once, width * sizeof *results);
                for (size_t v = 0; v < some; v++)
                    vectors[v] = from + (first + v) * c->in;
                tlm_apply(engine, c, vectors, (uint32_t)some, results, width, inner);
                for (size_t v = 0; v < some; v++)
                    place(results + v * width, to, &s, first + v, m->ranks[core],
                          m->row_shape[core], next);
            }
            float *swap = from;
            from = to;
            to = swap;
        }
        memcpy(y + i * stride, from, w->out * sizeof *y);
    }
}

size_t tlm_train_look_up_room(const tlm_matrix *w)
{
    const tlm_tensor_train *m = &w->u.tensor_train;
    size_t made = 1, most = 1, piece = 0, inner = 0;
    for (uint32_t core = 0; core < m->count; core++) {
        made = tlm_times(made, m->column_shape[core]);
        most = tlm_most(most, tlm_times(made, m->ranks[core + 1]));
        piece = tlm_most(piece, tlm_scratch_bytes(m->ranks[core], tlm_padded_floats(
                                                    m->cores[core].in) * sizeof(float)));
        inner = tlm_most(inner, tlm_look_up_room(&m->cores[core]));
    }
    return tlm_plus(tlm_plus(piece, inner),
                    tlm_times(2, tlm_scratch_bytes(most, sizeof(float))));
}

void tlm_train_look_up(const tlm_matrix *w, uint32_t row, float *out, tlm_scratch scratch)
{
    const tlm_tensor_train *m = &w->u.tensor_train;
    uint32_t digits[TLM_MAX_CORES];
    size_t made = 1, most = 1;
    for (uint32_t core = m->count; core-- > 0;) {
        digits[core] = row % m->row_shape[core];
        row /= m->row_shape[core];
    }
    for (uint32_t core = 0; core < m->count; core++) {
        made *= m->column_shape[core];
        most = tlm_most(most, made * m->ranks[core + 1]);
    }
    float *from = tlm_scratch_take(&scratch, most, sizeof *from);
    float *to = tlm_scratch_take(&scratch, most, sizeof *to);
    from[0] = 1;
    made = 1;
    for (uint32_t core = 0; core < m->count; core++) {
        const tlm_matrix *c = &m->cores[core];
        const size_t width = tlm_padded_floats(c->in), rank = m->ranks[core];
        tlm_scratch inner = scratch;
        float *piece = tlm_scratch_take(&inner, rank, width * sizeof *piece); /* [rank][width] */
        for (uint32_t k = 0; k < rank; k++)
            tlm_look_up(c, k * m->row_shape[core] + digits[core], piece + k * width, inner);
        for (size_t i = 0; i < made; i++) {
            float *at = to + i * c->in;
            memset(at, 0, c->in * sizeof *at);
            for (size_t k = 0; k < rank; k++)
                for (size_t j = 0; j < c->in; j++)
                    at[j] += from[i * rank + k] * piece[k * width + j];
        }
        made *= m->column_shape[core];
        float *swap = from;
        from = to;
        to = swap;
    }
    memcpy(out, from, w->in * sizeof *out);
}
