/* Ids in another order, read where they lie in the file, and the way back. */
#ifndef TLM_PERMUTATION_H
#define TLM_PERMUTATION_H

#include "arena.h"
#include "terselm.h"

/* Numbers of 2 bytes, or of 4 where `wide`; NULL: none. */
typedef struct tlm_numbers {
    const void *values;
    bool wide;
} tlm_numbers;

typedef struct tlm_permutation {
    tlm_numbers ids;    /* the id at each place, in the file */
    tlm_numbers places; /* the place of each id, made by the reader */
} tlm_permutation;

static inline uint32_t tlm_number(tlm_numbers numbers, uint32_t i)
{
    return numbers.wide ? ((const uint32_t *)numbers.values)[i]
                        : ((const uint16_t *)numbers.values)[i];
}

/* Bytes that the way back takes from an arena. */
uint64_t tlm_permutation_room(uint64_t count);

/* Check that `ids` holds each of 0 to count - 1 once, and make the way back.
 *
 * Returns TLM_OK, TLM_ERROR_MEMORY, or TLM_ERROR_MODEL with the first place whose id is beyond the
 * others or there already in `bad`. */
tlm_status tlm_permutation_read(tlm_arena *arena, tlm_numbers ids, uint32_t count,
                                tlm_permutation *out, uint32_t *bad);

#endif
