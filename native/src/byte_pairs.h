/* A byte-pair encoding, made from its merges. */
#ifndef TLM_BYTE_PAIRS_H
#define TLM_BYTE_PAIRS_H

#include "container.h"
#include "permutation.h"

typedef struct tlm_model tlm_model;

#define TLM_MAX_TOKEN 255u
#define TLM_FIRST_MERGED 257u

/* Id 0 is the line end, ids 1 to 256 are the bytes 0 to 255, the others are made by merges. */
typedef struct tlm_byte_pairs {
    uint32_t merges;
    uint32_t count;         /* tokens */
    tlm_numbers pairs;      /* [merges][2], in the file */
    const uint32_t *makes;  /* [merges]: the token that a merge makes */
    const uint32_t *made_by; /* [count]: the first merge that makes it */
    const uint8_t *sizes;   /* [count]: bytes of the token's text */
    const uint32_t *by_pair; /* hash table of merge + 1; 0: empty */
    const uint32_t *by_text; /* hash table of tokens; 0: empty */
    uint32_t mask;          /* of both */
} tlm_byte_pairs;

/* Bytes that the tables take from an arena, if the merges are sound. */
uint64_t tlm_byte_pairs_room(const tlm_container *container);
tlm_status tlm_byte_pairs_read(const tlm_model *model, tlm_arena *arena, const tlm_fault *fault,
                               tlm_byte_pairs *pairs);
/* Write the bytes of a token, at most 255, and return how many. */
uint32_t tlm_byte_pairs_text(const tlm_byte_pairs *pairs, uint32_t token, uint8_t *text);
/* The token of these bytes, TLM_NO_TOKEN if there is none. */
uint32_t tlm_byte_pairs_find(const tlm_byte_pairs *pairs, const uint8_t *text, size_t size);

/* Encode `size` bytes that no merge crosses the ends of. `piece` and `merges` have room for `size`
   numbers. Returns how many tokens there are, now in `piece`. */
size_t tlm_byte_pairs_encode(const tlm_byte_pairs *pairs, const uint8_t *text, size_t size,
                             uint32_t *piece, uint32_t *merges);
/* The bytes at the start of a line of UTF-8 that belong together: a word, a number, marks or
   white space; as if in lower case where `lowercase`. At least one, unless there are none. */
size_t tlm_byte_pairs_piece(const uint8_t *text, size_t size, bool lowercase);

static inline uint8_t tlm_lower(uint8_t byte, bool lowercase)
{
    return lowercase && byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
}

#endif
