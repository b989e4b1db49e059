/* One block of memory, handed out in pieces from both ends and freed as a whole: what stays from
   the front, what only the reader needs from the back. */
#ifndef TLM_ARENA_H
#define TLM_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TLM_ARENA_STEP ((size_t)16)

typedef struct tlm_arena {
    unsigned char *base; /* aligned to TLM_ARENA_STEP */
    size_t size;    /* a multiple of TLM_ARENA_STEP */
    size_t used;    /* bytes taken from the front */
    size_t passing; /* bytes taken from the back */
    bool is_short;  /* something was asked for that there was no room for */
} tlm_arena;

/* Find the bytes of a piece of `count` things of `size` bytes; false where there is no room. */
static inline bool tlm_arena_fits(tlm_arena *arena, size_t count, size_t size, size_t *room)
{
    size_t left = arena->size - arena->used - arena->passing;
    if (size != 0 && count > left / size) {
        arena->is_short = true;
        return false;
    }
    /* `left` is a multiple of the step, so rounding up does not go beyond it. */
    *room = (count * size + TLM_ARENA_STEP - 1) / TLM_ARENA_STEP * TLM_ARENA_STEP;
    return true;
}

/* Take `count` zeroed things of `size` bytes, aligned to 16; NULL where the arena is too small. */
static inline void *tlm_arena_take(tlm_arena *arena, size_t count, size_t size)
{
    size_t room;
    if (!tlm_arena_fits(arena, count, size, &room)) {
        return NULL;
    }
    void *piece = arena->base + arena->used;
    memset(piece, 0, room);
    arena->used += room;
    return piece;
}

/* The same for what is not needed once a model is open. */
static inline void *tlm_arena_take_passing(tlm_arena *arena, size_t count, size_t size)
{
    size_t room;
    if (!tlm_arena_fits(arena, count, size, &room)) {
        return NULL;
    }
    arena->passing += room;
    void *piece = arena->base + (arena->size - arena->passing);
    memset(piece, 0, room);
    return piece;
}

#endif
