/* The best of many choices, in a heap. */
#include "best.h"

/* Whether a comes before b. */
static bool is_before(tlm_choice a, tlm_choice b)
{
    return a.log_probability > b.log_probability ||
           (a.log_probability == b.log_probability && a.token < b.token);
}

/* Put a choice in its place among the best. */
static void sift(tlm_choice *heap, uint32_t count, tlm_choice choice)
{
    uint32_t at = 0;
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below + 1 < count && is_before(heap[below], heap[below + 1]))
            below++;
        if (below >= count || !is_before(choice, heap[below]))
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = choice;
}

static bool is_left_out(const tlm_best *b, uint32_t token)
{
    for (uint32_t i = 0; i < b->excluded; i++)
        if (b->exclude[i] == token)
            return true;
    return false;
}

void tlm_best_offer(tlm_best *b, uint32_t token, float score)
{
    const tlm_choice choice = {token, score};
    const bool full = b->count == b->k;
    if ((full && !is_before(choice, b->heap[0])) || is_left_out(b, token))
        return;
    if (full) {
        sift(b->heap, b->count, choice);
        return;
    }
    uint32_t at = b->count++;
    while (at > 0 && is_before(b->heap[(at - 1) / 2], choice)) {
        b->heap[at] = b->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    b->heap[at] = choice;
}

void tlm_best_sort(tlm_best *b)
{
    for (uint32_t left = b->count; left > 1; left--) {
        const tlm_choice last = b->heap[0];
        sift(b->heap, left - 1, b->heap[left - 1]);
        b->heap[left - 1] = last;
    }
}
