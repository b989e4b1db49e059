/* One block of memory, handed out in pieces and freed as a whole. */
#ifndef TLM_ARENA_H
#define TLM_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TLM_ARENA_STEP ((size_t)16)

typedef struct tlm_arena {
    unsigned char *base; /* aligned to TLM_ARENA_STEP */
    size_t size;
    size_t used;
} tlm_arena;

/* Take `count` zeroed things of `size` bytes, aligned to 16; NULL where the arena is too small. */
static inline void *tlm_arena_take(tlm_arena *arena, size_t count, size_t size)
{
    size_t left = arena->size - arena->used;
    if (size != 0 && count > left / size) {
        return NULL;
    }
    size_t bytes = count * size;
    size_t rest = bytes % TLM_ARENA_STEP;
    size_t room = rest == 0 ? bytes : bytes + (TLM_ARENA_STEP - rest);
    if (room > left) {
        return NULL;
    }
    void *piece = arena->base + arena->used;
    memset(piece, 0, room);
    arena->used += room;
    return piece;
}

#endif
