/* How much work a matrix makes. A leaf counts as if it was dense: what it stores lies in the file,
   so only forms made of others can make much of little. */
#include "work.h"

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    return a != 0 && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Vectors that go through a core in a product. */
static uint64_t vectors_of(const tlm_tensor_train *m, uint32_t core)
{
    uint64_t count = 1;
    for (uint32_t i = core + 1; i < m->count; i++)
        count = times(count, m->row_shape[i]);
    for (uint32_t i = 0; i < core; i++)
        count = times(count, m->column_shape[i]);
    return count;
}

static const tlm_matrix *blocks_of(const tlm_matrix *w, uint32_t *count)
{
    switch (w->form) {
    case TLM_ROW_BLOCKS: *count = w->u.row_blocks.count; return w->u.row_blocks.blocks;
    case TLM_GROUPED_ROWS: *count = w->u.grouped_rows.count; return w->u.grouped_rows.blocks;
    default: *count = w->u.placed_blocks.count; return w->u.placed_blocks.blocks;
    }
}

/* The work of all parts together, but of a tensor train's; that of a leaf. */
static uint64_t sum_of(const tlm_matrix *w, uint64_t (*work_of)(const tlm_matrix *))
{
    uint64_t work = 0;
    uint32_t count;
    switch (w->form) {
    case TLM_LOW_RANK: return plus(work_of(w->u.low_rank.left), work_of(w->u.low_rank.right));
    case TLM_ROW_BLOCKS:
    case TLM_GROUPED_ROWS:
    case TLM_PLACED_BLOCKS: {
        const tlm_matrix *blocks = blocks_of(w, &count);
        for (uint32_t i = 0; i < count; i++)
            work = plus(work, work_of(&blocks[i]));
        return work;
    }
    default: return (uint64_t)w->out * w->in;
    }
}

uint64_t tlm_product_work(const tlm_matrix *w)
{
    uint64_t work = 0;
    if (w->form != TLM_TENSOR_TRAIN)
        return sum_of(w, tlm_product_work);
    for (uint32_t i = 0; i < w->u.tensor_train.count; i++)
        work = plus(work, times(vectors_of(&w->u.tensor_train, i),
                                tlm_product_work(&w->u.tensor_train.cores[i])));
    return work;
}

/* Multiplications of adding up all rows, each times a weight. */
static uint64_t combine_work(const tlm_matrix *w)
{
    return w->form == TLM_TENSOR_TRAIN ? times(w->out, tlm_look_up_work(w))
                                       : sum_of(w, combine_work);
}

uint64_t tlm_look_up_work(const tlm_matrix *w)
{
    uint64_t work = 0, made = 1;
    uint32_t count;
    switch (w->form) {
    case TLM_LOW_RANK:
        return plus(tlm_look_up_work(w->u.low_rank.left), combine_work(w->u.low_rank.right));
    case TLM_PLACED_BLOCKS: return sum_of(w, tlm_look_up_work); /* a row may be in all of them */
    case TLM_ROW_BLOCKS:
    case TLM_GROUPED_ROWS: {
        const tlm_matrix *blocks = blocks_of(w, &count);
        for (uint32_t i = 0; i < count; i++)
            work = most(work, tlm_look_up_work(&blocks[i]));
        return work;
    }
    case TLM_TENSOR_TRAIN: {
        const tlm_tensor_train *m = &w->u.tensor_train;
        for (uint32_t i = 0; i < m->count; i++) {
            const uint64_t row = plus(tlm_look_up_work(&m->cores[i]), times(made, m->cores[i].in));
            work = plus(work, times(m->ranks[i], row));
            made = times(made, m->column_shape[i]);
        }
        return work;
    }
    /* Places follow one another through 64 rows; stored blocks before a row are counted anew. */
    case TLM_SPARSE:
    case TLM_SPARSE_QUANTIZED: return times(TLM_BLOCK_ROWS, w->in);
    case TLM_BLOCK_SPARSE:
    case TLM_BLOCK_SPARSE_QUANTIZED:
        return plus(w->in, times(w->u.block_sparse.grid_rows, w->u.block_sparse.grid_columns) / 8);
    default: return w->in;
    }
}

uint64_t tlm_train_held(const tlm_tensor_train *train)
{
    uint64_t held = 0, made = 1;
    for (uint32_t i = 0; i < train->count; i++) {
        const tlm_matrix *core = &train->cores[i];
        held = most(held, times(vectors_of(train, i), most(core->out, core->in)));
        held = most(held, times(most(made, train->ranks[i]), core->in)); /* of a look-up */
        made = times(made, train->column_shape[i]);
    }
    return held;
}
