#include "bias.h"

#include <math.h>
#include <string.h>

/* Numbers that are made float32 at once, on the stack. */
#define SOME 64u

/* No number of a file is infinite or NaN, so this is shorter than what a matrix of halves needs,
   and compilers make vectors of it: the exponent is too large by 112 until the product. */
static float from_half(uint16_t half)
{
    const uint32_t rest = (uint32_t)(half & 0x7fffu) << 13, sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t bits;
    float value;
    memcpy(&value, &rest, sizeof value);
    value *= 0x1p112f;
    memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float tlm_bias_at(const tlm_bias *bias, uint32_t i)
{
    return bias->half ? from_half(((const uint16_t *)bias->values)[i])
                      : ((const float *)bias->values)[i];
}

float tlm_add_bias(const tlm_kernels *kernels, const tlm_bias *bias, uint32_t begin, float *to,
                   const float *from, uint32_t size)
{
    if (!bias->half)
        return kernels->add_max(to, from, (const float *)bias->values + begin, size);
    const uint16_t *halves = (const uint16_t *)bias->values + begin;
    float most = -INFINITY;
    for (uint32_t at = 0; at < size; at += SOME) {
        const uint32_t some = size - at < SOME ? size - at : SOME;
        float part[SOME];
        for (uint32_t i = 0; i < some; i++)
            part[i] = from_half(halves[at + i]);
        most = fmaxf(most, kernels->add_max(to + at, from + at, part, some));
    }
    return most;
}
