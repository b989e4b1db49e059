/* A byte-pair encoding: its tables, and the text of its tokens. */
#include "byte_pairs.h"

#include <stdlib.h>
#include <string.h>

#include "model.h"

#define MOST_STEPS 32u

static const char MERGES[] = "vocabulary.merges";

static uint32_t mix(uint32_t hash, uint32_t value)
{
    hash = (hash ^ value) * 0x9e3779b1u;
    return hash ^ hash >> 15;
}

static uint32_t spread(uint32_t hash)
{
    hash = (hash ^ hash >> 16) * 0x85ebca6bu;
    hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
    return hash ^ hash >> 16;
}

static uint32_t hash_pair(uint32_t left, uint32_t right)
{
    return spread(mix(mix(0, left), right));
}

static uint32_t hash_text(const uint8_t *text, size_t size)
{
    uint32_t hash = 0;
    for (size_t i = 0; i < size; i++)
        hash = mix(hash, text[i]);
    return spread(hash);
}

/* The first empty place for what has this hash; `steps` counts the places that were not. */
static uint32_t empty_place(const tlm_byte_pairs *pairs, const uint32_t *table, uint32_t hash,
                            uint64_t *steps)
{
    uint32_t at = hash & pairs->mask;
    for (; table[at] != 0; at = (at + 1) & pairs->mask)
        ++*steps;
    return at;
}

uint32_t tlm_byte_pairs_text(const tlm_byte_pairs *pairs, uint32_t token, uint8_t *text)
{
    uint32_t waiting[TLM_MAX_TOKEN + 1], depth = 0, size = 0;
    waiting[depth++] = token;
    while (depth > 0) {
        const uint32_t next = waiting[--depth];
        if (next < TLM_FIRST_MERGED) {
            text[size++] = next == 0 ? '\n' : (uint8_t)(next - 1);
        } else { /* every token waiting has at least one byte to give, so there is room */
            const uint32_t *pair = pairs->pairs + 2 * (size_t)pairs->made_by[next];
            waiting[depth++] = pair[1];
            waiting[depth++] = pair[0];
        }
    }
    return size;
}

uint32_t tlm_byte_pairs_find(const tlm_byte_pairs *pairs, const uint8_t *text, size_t size)
{
    uint8_t own[TLM_MAX_TOKEN];
    if (size == 0 || size > TLM_MAX_TOKEN)
        return TLM_NO_TOKEN;
    for (uint32_t at = hash_text(text, size) & pairs->mask;; at = (at + 1) & pairs->mask) {
        const uint32_t token = pairs->by_text[at];
        if (token == 0)
            return TLM_NO_TOKEN;
        if (pairs->sizes[token] == size && tlm_byte_pairs_text(pairs, token, own) == size &&
            memcmp(own, text, size) == 0)
            return token;
    }
}

/* The merge of two tokens, or UINT32_MAX. */
static uint32_t merge_of(const tlm_byte_pairs *pairs, uint32_t left, uint32_t right)
{
    for (uint32_t at = hash_pair(left, right) & pairs->mask;; at = (at + 1) & pairs->mask) {
        const uint32_t entry = pairs->by_pair[at];
        if (entry == 0)
            return UINT32_MAX;
        const uint32_t *pair = pairs->pairs + 2 * (size_t)(entry - 1);
        if (pair[0] == left && pair[1] == right)
            return entry - 1;
    }
}

size_t tlm_byte_pairs_encode(const tlm_byte_pairs *pairs, const uint8_t *text, size_t size,
                             uint32_t *piece, uint32_t *merges)
{
    for (size_t i = 0; i < size; i++)
        piece[i] = 1u + text[i];
    /* merges[i] is that of tokens i and i + 1: looked up once, not in every pass. */
    for (size_t i = 0; i + 1 < size; i++)
        merges[i] = merge_of(pairs, piece[i], piece[i + 1]);
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t place = 0;
        for (size_t i = 0; i + 1 < size; i++)
            if (merges[i] < best) {
                best = merges[i];
                place = i;
            }
        if (best == UINT32_MAX)
            return size;
        piece[place] = pairs->makes[best];
        const size_t after = (size - place - 2) * sizeof *piece;
        memmove(piece + place + 1, piece + place + 2, after);
        memmove(merges + place, merges + place + 1, after);
        size--;
        if (place > 0)
            merges[place - 1] = merge_of(pairs, piece[place - 1], piece[place]);
        if (place + 1 < size)
            merges[place] = merge_of(pairs, piece[place], piece[place + 1]);
    }
}

/* Add one merge to the tables; false if it cannot be. */
static bool add_merge(tlm_byte_pairs *pairs, uint32_t number, uint32_t *makes, uint32_t *made_by,
                      uint8_t *sizes, uint32_t *by_pair, uint32_t *by_text, uint64_t *steps)
{
    const uint32_t left = pairs->pairs[2 * (size_t)number];
    const uint32_t right = pairs->pairs[2 * (size_t)number + 1];
    uint8_t text[2 * TLM_MAX_TOKEN];
    if (left == 0 || right == 0 || left >= pairs->count || right >= pairs->count ||
        merge_of(pairs, left, right) != UINT32_MAX || sizes[left] + sizes[right] > (int)TLM_MAX_TOKEN)
        return false;
    by_pair[empty_place(pairs, by_pair, hash_pair(left, right), steps)] = number + 1;
    uint32_t size = tlm_byte_pairs_text(pairs, left, text);
    size += tlm_byte_pairs_text(pairs, right, text + size);
    const uint32_t at = empty_place(pairs, by_text, hash_text(text, size), steps);
    makes[number] = tlm_byte_pairs_find(pairs, text, size);
    if (makes[number] == TLM_NO_TOKEN) {
        makes[number] = pairs->count;
        made_by[pairs->count] = number;
        sizes[pairs->count] = (uint8_t)size;
        by_text[at] = pairs->count++;
    }
    return true;
}

tlm_status tlm_byte_pairs_read(const tlm_model *model, const tlm_fault *fault,
                               tlm_byte_pairs *pairs)
{
    const tlm_tensor *stored = tlm_container_find(&model->container, MERGES);
    if (stored == NULL || (stored->type != TLM_U16 && stored->type != TLM_U32) ||
        stored->rank != 2 || stored->shape[1] != 2 || stored->shape[0] > UINT32_MAX / 16)
        return tlm_fail(fault, TLM_ERROR_MODEL, "%s is %s", MERGES,
                        stored == NULL ? "missing" : "not pairs of ids");
    const uint32_t merges = (uint32_t)stored->shape[0], most = merges + TLM_FIRST_MERGED;
    uint32_t table = 1024;
    while (table < 2 * (uint64_t)most)
        table *= 2;
    const uint64_t numbers = 3 * (uint64_t)merges + most + 2 * (uint64_t)table;
    const uint64_t size = numbers * sizeof(uint32_t) + most;
    uint32_t *memory = size > SIZE_MAX / 2 ? NULL : calloc(1, (size_t)size);
    if (memory == NULL)
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the vocabulary");
    uint32_t *makes = memory + 2 * (size_t)merges, *made_by = makes + merges;
    uint32_t *by_pair = made_by + most, *by_text = by_pair + table;
    uint8_t *sizes = (uint8_t *)(memory + numbers);
    for (size_t i = 0; i < 2 * (size_t)merges; i++)
        memory[i] = stored->type == TLM_U32 ? ((const uint32_t *)stored->data)[i]
                                            : ((const uint16_t *)stored->data)[i];
    *pairs = (tlm_byte_pairs){merges, TLM_FIRST_MERGED, memory, makes, made_by, sizes, by_pair,
                              by_text, table - 1, memory};
    memset(sizes, 1, TLM_FIRST_MERGED);
    uint64_t steps = 0;
    for (uint32_t token = 1; token < TLM_FIRST_MERGED; token++) {
        const uint8_t byte = (uint8_t)(token - 1);
        by_text[empty_place(pairs, by_text, hash_text(&byte, 1), &steps)] = token;
    }
    for (uint32_t i = 0; i < merges; i++) {
        if (!add_merge(pairs, i, makes, made_by, sizes, by_pair, by_text, &steps))
            return tlm_fail(fault, TLM_ERROR_MODEL, "%s: merge %u is not possible", MERGES, i);
        /* Tables at most half full take 4 steps a merge; only made-up merges take many. */
        if (steps > MOST_STEPS * ((uint64_t)i + 2048))
            return tlm_fail(fault, TLM_ERROR_MODEL,
                            "%s: merges up to %u are made up to collide in a table", MERGES, i);
    }
    if (pairs->count != model->vocabulary_size)
        return tlm_fail(fault, TLM_ERROR_MODEL, "vocabulary: size is %u, %s makes %u",
                        model->vocabulary_size, MERGES, pairs->count);
    return TLM_OK;
}
