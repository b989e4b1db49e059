/* The bias of an output layer, float32 or float16 as it lies in the file. */
#ifndef TLM_BIAS_H
#define TLM_BIAS_H

#include "kernels.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tlm_bias {
    const void *values; /* float or, where half, uint16_t */
    bool half;
} tlm_bias;

float tlm_bias_at(const tlm_bias *bias, uint32_t i);
/* to[i] = from[i] + the bias of begin + i, for `size` numbers; the greatest of them. `to` may be
   `from`. */
float tlm_add_bias(const tlm_kernels *kernels, const tlm_bias *bias, uint32_t begin, float *to,
                   const float *from, uint32_t size);

#endif
