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

/* The score of a token after the state that was read last: exact. */
static float score_of(tlm_context *c, uint32_t token)
{
    return c->preview.bits != 0 ? tlm_preview_score(c, token) : c->scores[token];
}

/* Offer the words with a prefix, which are neighbours in sorted order. */
static void offer_words(tlm_context *c, const char *prefix, size_t size, tlm_best *best)
{
    const tlm_words *words = &c->model->vocabulary.words;
    uint32_t place = tlm_words_place(words, prefix, size);
    tlm_word word;
    if (place == words->count)
        return;
    for (tlm_words_at(words, place, &word);
         word.size >= size && memcmp(word.text, prefix, size) == 0; tlm_words_next(&word)) {
        const uint32_t id = tlm_words_id(words, word.place);
        tlm_best_offer(best, id, score_of(c, id));
        if (word.place + 1 == words->count)
            break;
    }
}

/* Offer the byte-pair tokens with a prefix. */
static void offer_pairs(tlm_context *c, const char *prefix, size_t prefix_size, tlm_best *best)
{
    char text[TLM_MAX_TOKEN_BYTES];
    uint32_t size;
    for (uint32_t id = 0; id < c->model->vocabulary_size; id++) {
        if (c->preview.bits == 0 && tlm_best_beats(best, c->scores[id]))
            continue;
        tlm_token_text(c->model, id, text, &size);
        if (size >= prefix_size && memcmp(text, prefix, prefix_size) == 0)
            tlm_best_offer(best, id, score_of(c, id));
    }
}

static void offer_all(tlm_context *c, tlm_best *best)
{
    if (c->preview.bits != 0) {
        tlm_preview_offer(c, best);
        return;
    }
    for (uint32_t id = 0; id < c->model->vocabulary_size; id++)
        if (!tlm_best_beats(best, c->scores[id]))
            tlm_best_offer(best, id, c->scores[id]);
}

/* Subtract from all scores. What differed may be equal then, so all are offered anew. */
static void subtract(tlm_best *best, float sum)
{
    const uint32_t count = best->count;
    best->count = best->excluded = 0;
    for (uint32_t i = 0; i < count; i++)
        tlm_best_offer(best, best->heap[i].token, best->heap[i].log_probability - sum);
}

tlm_status tlm_top(tlm_context *context, const void *state, const char *prefix,
                   size_t prefix_size, const uint32_t *exclude, uint32_t exclude_count, uint32_t k,
                   tlm_choice *out, uint32_t *found)
{
    if (context == NULL || out == NULL || found == NULL || k == 0 ||
        (exclude == NULL && exclude_count != 0) || (prefix == NULL && prefix_size != 0))
        return TLM_ERROR_ARGUMENT;
    const bool previews = context->preview.bits != 0;
    const tlm_scratch saved = context->scratch;
    if (state == NULL || (uintptr_t)state % sizeof(float) != 0)
        return TLM_ERROR_ARGUMENT;
    if (previews)
        tlm_preview_read(context, tlm_output_vector(context->model, state));
    else
        scores_after(context, state);
    tlm_best best = {out, 0, k, exclude, exclude_count};
    if (prefix_size == 0)
        offer_all(context, &best);
    else if (context->model->vocabulary.kind == TLM_BYTE_PAIRS)
        offer_pairs(context, prefix, prefix_size, &best);
    else
        offer_words(context, prefix, prefix_size, &best);
    if (previews)
        subtract(&best, tlm_preview_log_sum(context));
    tlm_best_sort(&best);
    context->scratch = saved;
    *found = best.count;
    return TLM_OK;
}
