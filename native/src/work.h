/* How much work a matrix makes, so that a small file cannot ask for hours of it. */
#ifndef TLM_WORK_H
#define TLM_WORK_H

#include "matrix.h"

/* What the trains of a model may need for one product each, and the embedding for one look-up:
   multiplications, and numbers held between two cores. Real ones stay below a thousandth. */
#ifdef TLM_FUZZING /* only `make fuzz` defines it: a fuzzer tries thousands of files a second */
#define TLM_MOST_WORK ((uint64_t)1 << 22)
#else
#define TLM_MOST_WORK ((uint64_t)1 << 33)
#endif
#define TLM_MOST_HELD ((uint64_t)1 << 25)

/* Multiplications of a product with one vector, at most UINT64_MAX. */
uint64_t tlm_product_work(const tlm_matrix *w);
/* Multiplications of looking up one row. */
uint64_t tlm_look_up_work(const tlm_matrix *w);
/* Numbers that a tensor train holds between two cores, in a product or a look-up. */
uint64_t tlm_train_held(const tlm_tensor_train *train);

#endif
