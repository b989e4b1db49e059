/* Permutations of ids: checked once, with a way back of 2 bytes an id where that is enough. */
#include "permutation.h"

/* No place is the largest number that its type holds: that marks an id not seen yet. */
static bool needs_wide(uint64_t count)
{
    return count > UINT16_MAX;
}

uint64_t tlm_permutation_room(uint64_t count)
{
    return count * (needs_wide(count) ? sizeof(uint32_t) : sizeof(uint16_t)) + TLM_ARENA_STEP;
}

tlm_status tlm_permutation_read(tlm_arena *arena, tlm_numbers ids, uint32_t count,
                                tlm_permutation *out, uint32_t *bad)
{
    const bool wide = needs_wide(count);
    const size_t size = wide ? sizeof(uint32_t) : sizeof(uint16_t);
    void *places = tlm_arena_take(arena, count, size);
    const tlm_numbers back = {places, wide};
    if (places == NULL)
        return TLM_ERROR_MEMORY;
    memset(places, 0xff, count * size);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t id = tlm_number(ids, i);
        *bad = i;
        if (id >= count || tlm_number(back, id) < count)
            return TLM_ERROR_MODEL;
        if (wide)
            ((uint32_t *)places)[id] = i;
        else
            ((uint16_t *)places)[id] = (uint16_t)i;
    }
    *out = (tlm_permutation){ids, back};
    return TLM_OK;
}
