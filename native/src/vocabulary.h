/* The vocabulary of a model: tokens as text, and text as tokens. */
#ifndef TLM_VOCABULARY_H
#define TLM_VOCABULARY_H

#include "byte_pairs.h"
#include "words.h"

typedef enum tlm_vocabulary_kind {
    TLM_WORDS,
    TLM_CHARACTERS,
    TLM_BYTE_PAIRS
} tlm_vocabulary_kind;

typedef struct tlm_vocabulary {
    tlm_vocabulary_kind kind;
    bool lowercase;         /* A to Z become a to z first */
    bool marks_are_words;   /* words end at punctuation */
    uint32_t start;         /* ends a line */
    uint32_t unknown;       /* or TLM_NO_TOKEN */
    tlm_words words;        /* of words and characters */
    tlm_byte_pairs pairs;
} tlm_vocabulary;

struct tlm_reader;

/* Bytes that the vocabulary takes from an arena, if it is sound. */
uint64_t tlm_vocabulary_room(const tlm_container *container);
/* Read the vocabulary that `spec` describes; its kind is set. */
tlm_status tlm_read_vocabulary(const struct tlm_reader *reader, tlm_json spec, tlm_model *model);

#endif
