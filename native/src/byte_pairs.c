/* A byte-pair encoding: its tables, and the text of its tokens. */
#include "byte_pairs.h"

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

static uint32_t left_of(const tlm_byte_pairs *pairs, uint32_t merge)
{
    return tlm_number(pairs->pairs, 2 * merge);
}

static uint32_t right_of(const tlm_byte_pairs *pairs, uint32_t merge)
{
    return tlm_number(pairs->pairs, 2 * merge + 1);
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
            const uint32_t merge = pairs->made_by[next];
            waiting[depth++] = right_of(pairs, merge);
            waiting[depth++] = left_of(pairs, merge);
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
        if (left_of(pairs, entry - 1) == left && right_of(pairs, entry - 1) == right)
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
    const uint32_t left = left_of(pairs, number), right = right_of(pairs, number);
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

static bool is_list(const tlm_tensor *stored)
{
    return (stored->type == TLM_U16 || stored->type == TLM_U32) && stored->rank == 2 &&
           stored->shape[1] == 2 && stored->shape[0] <= UINT32_MAX / 16;
}

/* Places of a hash table for so many tokens: twice as many or more. */
static uint32_t table_size(uint32_t tokens)
{
    uint32_t size = 1024;
    while (size < 2 * (uint64_t)tokens)
        size *= 2;
    return size;
}

uint64_t tlm_byte_pairs_room(const tlm_container *container)
{
    tlm_tensor stored;
    if (!tlm_container_peek(container, MERGES, &stored) || !is_list(&stored))
        return 0;
    const uint32_t merges = (uint32_t)stored.shape[0], most = merges + TLM_FIRST_MERGED;
    const uint64_t numbers = (uint64_t)merges + most + 2 * (uint64_t)table_size(most);
    return numbers * sizeof(uint32_t) + most + 5 * TLM_ARENA_STEP;
}

tlm_status tlm_byte_pairs_read(const tlm_model *model, tlm_arena *arena, const tlm_fault *fault,
                               tlm_byte_pairs *pairs)
{
    const tlm_tensor *stored = tlm_container_find(&model->container, MERGES);
    if (stored == NULL || !is_list(stored))
        return tlm_fail(fault, TLM_ERROR_MODEL, "%s is %s", MERGES,
                        stored == NULL ? "missing" : "not pairs of ids");
    const uint32_t merges = (uint32_t)stored->shape[0], most = merges + TLM_FIRST_MERGED;
    const uint32_t table = table_size(most);
    uint32_t *makes = tlm_arena_take(arena, merges, sizeof *makes);
    uint32_t *made_by = tlm_arena_take(arena, most, sizeof *made_by);
    uint32_t *by_pair = tlm_arena_take(arena, table, sizeof *by_pair);
    uint32_t *by_text = tlm_arena_take(arena, table, sizeof *by_text);
    uint8_t *sizes = tlm_arena_take(arena, most, 1);
    if (makes == NULL || made_by == NULL || by_pair == NULL || by_text == NULL || sizes == NULL)
        return tlm_fail(fault, TLM_ERROR_MEMORY, "no memory for the vocabulary");
    *pairs = (tlm_byte_pairs){merges, TLM_FIRST_MERGED, {stored->data, stored->type == TLM_U32},
                              makes, made_by, sizes, by_pair, by_text, table - 1};
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
