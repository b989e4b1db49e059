/* The best of many choices. */
#ifndef TLM_BEST_H
#define TLM_BEST_H

#include "terselm.h"

/* The k best so far as a heap; heap[0] is the last of them. Those left out are never taken. */
typedef struct tlm_best {
    tlm_choice *heap; /* [k] */
    uint32_t count;
    uint32_t k;
    const uint32_t *exclude;
    uint32_t excluded;
} tlm_best;

/* Take a choice in if it is among the best. */
void tlm_best_offer(tlm_best *best, uint32_t token, float score);
/* Put the best first; nothing can be offered after that. */
void tlm_best_sort(tlm_best *best);

/* Whether something that scores no more than this need not be offered. */
static inline bool tlm_best_beats(const tlm_best *best, float most)
{
    return best->count == best->k && !(most >= best->heap[0].log_probability);
}

#endif
