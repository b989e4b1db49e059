/* A sorted, front-coded list of words, as it lies in the file. */
#ifndef TLM_WORDS_H
#define TLM_WORDS_H

#include "container.h"
#include "permutation.h"

typedef struct tlm_model tlm_model;

#define TLM_MAX_WORD 255u

typedef struct tlm_words {
    const uint8_t *coded; /* in the file */
    size_t size;
    uint32_t count;
    tlm_permutation order; /* ids of words in sorted order; none: their places */
    uint32_t anchors;      /* every 16th word */
    const uint32_t *starts; /* [anchors]: where its bytes begin in `coded` */
    const uint32_t *texts;  /* [anchors + 1]: where its text begins in `text` */
    const uint8_t *text;
} tlm_words;

/* A walk through words in sorted order. */
typedef struct tlm_word {
    const uint8_t *at; /* the next one */
    uint8_t text[TLM_MAX_WORD];
    uint32_t size;
    uint32_t place;
} tlm_word;

/* Bytes that the list takes from an arena, if it is sound. */
uint64_t tlm_words_room(const tlm_container *container);
/* Check and index the list; `characters`: each is one character, or <unk>. */
tlm_status tlm_words_read(const tlm_model *model, tlm_arena *arena, const tlm_fault *fault,
                          bool characters, tlm_words *words);
/* The word at a place of the sorted order. */
void tlm_words_at(const tlm_words *words, uint32_t place, tlm_word *word);
/* Go on to the next one; there must be one. */
void tlm_words_next(tlm_word *word);
/* The first place whose word is not before these bytes; `count` if all are. */
uint32_t tlm_words_place(const tlm_words *words, const void *text, size_t size);
/* The id of a word, TLM_NO_TOKEN if it is not there. */
uint32_t tlm_words_find(const tlm_words *words, const void *text, size_t size);

static inline uint32_t tlm_words_id(const tlm_words *words, uint32_t place)
{
    return words->order.ids.values == NULL ? place : tlm_number(words->order.ids, place);
}

#endif
