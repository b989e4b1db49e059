#include "tensor_order.h"

#include <string.h>

typedef int order(const tlm_tensor *a, const tlm_tensor *b);

int tlm_compare_names(const tlm_tensor *tensor, const char *name, size_t size)
{
    const size_t own = tensor->name_size;
    const int found = memcmp(tensor->name, name, own < size ? own : size);
    return found != 0 ? found : own < size ? -1 : own > size;
}

static int by_name(const tlm_tensor *a, const tlm_tensor *b)
{
    return tlm_compare_names(a, b->name, b->name_size);
}

static int by_place(const tlm_tensor *a, const tlm_tensor *b)
{
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static void swap(tlm_tensor *a, tlm_tensor *b)
{
    const tlm_tensor held = *a;
    *a = *b;
    *b = held;
}

/* Let the tensor at `at` sink below those that come after it. */
static void sink(tlm_tensor *heap, size_t count, size_t at, order *compare)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && compare(&heap[child], &heap[child + 1]) < 0)
            child++;
        if (compare(&heap[at], &heap[child]) >= 0)
            return;
        swap(&heap[at], &heap[child]);
    }
}

/* Heap sort: in place and never quadratic; qsort takes memory in some C libraries. */
static void sort(tlm_tensor *tensors, size_t count, order *compare)
{
    for (size_t at = count / 2; at-- > 0;)
        sink(tensors, count, at, compare);
    for (size_t end = count; end-- > 1;) {
        swap(&tensors[0], &tensors[end]);
        sink(tensors, end, 0, compare);
    }
}

void tlm_sort_by_place(tlm_tensor *tensors, size_t count)
{
    sort(tensors, count, by_place);
}

void tlm_sort_by_name(tlm_tensor *tensors, size_t count)
{
    sort(tensors, count, by_name);
}
