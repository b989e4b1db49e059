/* Calls that return probabilities: of all tokens, of some, of a sequence, of the most likely. */
#include <string.h>

#include "context.h"

tlm_status tlm_log_probabilities_many(tlm_context *c, uint32_t count, const void *const *states,
                                      float *out)
{
    if (c == NULL || states == NULL || out == NULL || count > c->batch)
        return TLM_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++) {
        if (states[i] == NULL || (uintptr_t)states[i] % sizeof(float) != 0)
            return TLM_ERROR_ARGUMENT;
        c->inputs[i] = tlm_output_vector(c->model, states[i]);
    }
    if (count == 0)
        return TLM_OK;
    tlm_all_scores(c, count, c->inputs, out, c->model->vocabulary_size);
    return TLM_OK;
}

tlm_status tlm_log_probabilities(tlm_context *context, const void *state, float *out)
{
    return tlm_log_probabilities_many(context, 1, &state, out);
}

/* Log-probabilities after a state, in the context; NULL for bad arguments. */
static const float *scores_after(tlm_context *c, const void *state)
{
    if (c == NULL || state == NULL || (uintptr_t)state % sizeof(float) != 0)
        return NULL;
    c->inputs[0] = tlm_output_vector(c->model, state);
    tlm_all_scores(c, 1, c->inputs, c->scores, c->score_width);
    return c->scores;
}

tlm_status tlm_score_tokens(tlm_context *context, const void *state, const uint32_t *tokens,
                            uint32_t count, float *out)
{
    if (context == NULL || (count != 0 && (tokens == NULL || out == NULL)))
        return TLM_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++)
        if (tokens[i] >= context->model->vocabulary_size)
            return TLM_ERROR_ARGUMENT;
    const float *scores = scores_after(context, state);
    if (scores == NULL)
        return TLM_ERROR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++)
        out[i] = scores[tokens[i]];
    return TLM_OK;
}

static uint32_t rank_of(const float *scores, uint32_t size, float score)
{
    uint32_t above = 0;
    for (uint32_t id = 0; id < size; id++)
        above += scores[id] >= score;
    return above == 0 ? 0 : above - 1; /* the token itself; none with NaN */
}

/* Score what `kept` holds the vectors for. */
static void score_kept(tlm_context *c, uint32_t count, const uint32_t *tokens, float *out,
                       uint32_t *ranks)
{
    for (uint32_t i = 0; i < count; i++)
        c->inputs[i] = c->kept + (size_t)i * c->model->config.output_size;
    if (ranks == NULL) {
        tlm_target_scores(c, count, c->inputs, tokens, out);
        return;
    }
    tlm_all_scores(c, count, c->inputs, c->scores, c->score_width);
    for (uint32_t i = 0; i < count; i++) {
        const float *scores = c->scores + i * c->score_width;
        out[i] = scores[tokens[i]];
        ranks[i] = rank_of(scores, c->model->vocabulary_size, out[i]);
    }
}

static tlm_status read_sequence(tlm_context *c, void *state, const uint32_t *tokens, size_t count,
                                float *out, uint32_t *ranks, double *total)
{
    if (c == NULL || state == NULL || (uintptr_t)state % sizeof(float) != 0 ||
        (tokens == NULL && count != 0))
        return TLM_ERROR_ARGUMENT;
    for (size_t i = 0; i < count; i++)
        if (tokens[i] >= c->model->vocabulary_size)
            return TLM_ERROR_ARGUMENT;
    const uint32_t size = c->model->config.output_size;
    double sum = 0;
    for (size_t first = 0; first < count; first += c->batch) {
        const uint32_t some = count - first < c->batch ? (uint32_t)(count - first) : c->batch;
        for (uint32_t i = 0; i < some; i++) {
            memcpy(c->kept + (size_t)i * size, tlm_output_vector(c->model, state),
                   size * sizeof(float));
            tlm_step(c, state, tokens[first + i]);
        }
        score_kept(c, some, tokens + first, c->chosen, ranks == NULL ? NULL : ranks + first);
        for (uint32_t i = 0; i < some; i++)
            sum += (double)c->chosen[i];
        if (out != NULL)
            memcpy(out + first, c->chosen, some * sizeof *out);
    }
    if (total != NULL)
        *total = sum;
    return TLM_OK;
}

tlm_status tlm_score_sequence(tlm_context *context, void *state, const uint32_t *tokens,
                              size_t count, float *out, double *total)
{
    return read_sequence(context, state, tokens, count, out, NULL, total);
}

tlm_status tlm_rank_sequence(tlm_context *context, void *state, const uint32_t *tokens,
                             size_t count, float *out, uint32_t *ranks)
{
    return ranks == NULL && count != 0
               ? TLM_ERROR_ARGUMENT
               : read_sequence(context, state, tokens, count, out, ranks, NULL);
}

/* Whether a comes before b. */
static bool is_before(tlm_choice a, tlm_choice b)
{
    return a.log_probability > b.log_probability ||
           (a.log_probability == b.log_probability && a.token < b.token);
}

/* Put a choice in its place among the best; `heap[0]` is the last of them. */
static void sift(tlm_choice *heap, uint32_t count, tlm_choice choice)
{
    uint32_t at = 0;
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below + 1 < count && is_before(heap[below], heap[below + 1]))
            below++;
        if (below >= count || !is_before(choice, heap[below]))
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = choice;
}

/* The k best so far as a heap. */
typedef struct best {
    tlm_choice *heap;
    uint32_t count;
    uint32_t k;
} best;

static void offer(best *b, tlm_choice choice)
{
    if (b->count == b->k) {
        if (is_before(choice, b->heap[0]))
            sift(b->heap, b->count, choice);
        return;
    }
    uint32_t at = b->count++;
    while (at > 0 && is_before(b->heap[(at - 1) / 2], choice)) {
        b->heap[at] = b->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    b->heap[at] = choice;
}

static void sort_best(best *b)
{
    for (uint32_t left = b->count; left > 1; left--) {
        const tlm_choice last = b->heap[0];
        sift(b->heap, left - 1, b->heap[left - 1]);
        b->heap[left - 1] = last;
    }
}

static bool is_in(uint32_t token, const uint32_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == token)
            return true;
    return false;
}

/* Offer the words with a prefix, which are neighbours in sorted order. */
static void offer_prefix(const tlm_model *model, const float *scores, const char *prefix,
                         size_t size, const uint32_t *exclude, uint32_t excluded, best *b)
{
    const tlm_words *words = &model->vocabulary.words;
    uint32_t place = tlm_words_place(words, prefix, size);
    tlm_word word;
    if (place == words->count)
        return;
    for (tlm_words_at(words, place, &word);
         word.size >= size && memcmp(word.text, prefix, size) == 0; tlm_words_next(&word)) {
        const uint32_t id = tlm_words_id(words, word.place);
        if (!is_in(id, exclude, excluded))
            offer(b, (tlm_choice){id, scores[id]});
        if (word.place + 1 == words->count)
            break;
    }
}

tlm_status tlm_top(tlm_context *context, const void *state, const char *prefix,
                   size_t prefix_size, const uint32_t *exclude, uint32_t exclude_count, uint32_t k,
                   tlm_choice *out, uint32_t *found)
{
    if (context == NULL || out == NULL || found == NULL || k == 0 ||
        (exclude == NULL && exclude_count != 0) || (prefix == NULL && prefix_size != 0))
        return TLM_ERROR_ARGUMENT;
    const float *scores = scores_after(context, state);
    if (scores == NULL)
        return TLM_ERROR_ARGUMENT;
    const tlm_model *model = context->model;
    best b = {out, 0, k};
    if (prefix_size != 0 && model->vocabulary.kind != TLM_BYTE_PAIRS) {
        offer_prefix(model, scores, prefix, prefix_size, exclude, exclude_count, &b);
    } else {
        for (uint32_t id = 0; id < model->vocabulary_size; id++) {
            if (b.count == k && !(scores[id] > out[0].log_probability))
                continue;
            if (is_in(id, exclude, exclude_count))
                continue;
            if (prefix_size != 0) {
                char text[TLM_MAX_TOKEN_BYTES];
                uint32_t size;
                tlm_token_text(model, id, text, &size);
                if (size < prefix_size || memcmp(text, prefix, prefix_size) != 0)
                    continue;
            }
            offer(&b, (tlm_choice){id, scores[id]});
        }
    }
    sort_best(&b);
    *found = b.count;
    return TLM_OK;
}
