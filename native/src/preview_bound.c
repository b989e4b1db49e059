/* Scores of a preview and their bounds: a file of its own, since it is compiled for speed. */
#include "preview.h"

void tlm_preview_bound(tlm_preview *p, float across, float along, float all)
{
    float *restrict scores = p->scores, *restrict most = p->most;
    const float *bias = p->bias, *lost_across = p->across, *lost_along = p->along;
    for (uint32_t i = 0; i < p->rows; i++) {
        const float score = scores[i] + most[i] + bias[i];
        scores[i] = score;
        most[i] = score + (across * lost_across[i] + along * lost_along[i] + all);
    }
}
