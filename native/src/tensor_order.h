/* The order of tensors in a container. */
#ifndef TLM_TENSOR_ORDER_H
#define TLM_TENSOR_ORDER_H

#include "container.h"

/* Below 0, 0 or above 0: the tensor's name comes before this one, is it, or comes after. */
int tlm_compare_names(const tlm_tensor *tensor, const char *name, size_t size);
/* By where they begin in the data section, of those the shorter first. */
void tlm_sort_by_place(tlm_tensor *tensors, size_t count);
void tlm_sort_by_name(tlm_tensor *tensors, size_t count);

#endif
