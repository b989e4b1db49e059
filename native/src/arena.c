/* Taking pieces from an arena. */
#include "arena.h"

/* Zero a piece at the front, or at the back where it is `passing`. */
static void *take(tlm_arena *arena, size_t count, size_t size, bool passing)
{
    const size_t left = arena->size - arena->used - arena->passing;
    if (size != 0 && count > left / size) {
        arena->is_short = true;
        return NULL;
    }
    /* `left` is a multiple of the step, so rounding up does not go beyond it. */
    const size_t room = (count * size + TLM_ARENA_STEP - 1) / TLM_ARENA_STEP * TLM_ARENA_STEP;
    const size_t at = passing ? arena->size - arena->passing - room : arena->used;
    *(passing ? &arena->passing : &arena->used) += room;
    return memset(arena->base + at, 0, room);
}

void *tlm_arena_take(tlm_arena *arena, size_t count, size_t size)
{
    return take(arena, count, size, false);
}

void *tlm_arena_take_passing(tlm_arena *arena, size_t count, size_t size)
{
    return take(arena, count, size, true);
}
