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

/* Take `count` zeroed things of `size` bytes, aligned to 16; NULL where the arena is too small. */
void *tlm_arena_take(tlm_arena *arena, size_t count, size_t size);
/* The same for what is not needed once a model is open. */
void *tlm_arena_take_passing(tlm_arena *arena, size_t count, size_t size);

#endif
