/* A pool of threads that share one piece of work. */
#ifndef TLM_THREADS_H
#define TLM_THREADS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tlm_pool tlm_pool;

/* Part `number` of `parts` of a piece of work. */
typedef void tlm_task(void *work, uint32_t number, uint32_t parts);

/* Whether this library was built with threads. */
bool tlm_pool_exists(void);

/* Make a pool of `threads`, the caller's own among them; NULL if that cannot be, or if this
   library was built without threads. */
tlm_pool *tlm_pool_open(uint32_t threads);
void tlm_pool_close(tlm_pool *pool);
uint32_t tlm_pool_size(const tlm_pool *pool);

/* Do all parts, one a thread, and return when they are done. */
void tlm_pool_run(tlm_pool *pool, tlm_task *task, void *work);

#endif
