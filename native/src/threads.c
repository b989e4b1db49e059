/* A pool of threads: they wait, do their part of a piece of work, and wait again. */
#include "threads.h"

#include <stddef.h>

#if defined(TLM_NO_THREADS) || defined(TLM_NO_MALLOC) || defined(_WIN32) || defined(__wasm__)

bool tlm_pool_exists(void)
{
    return false;
}

tlm_pool *tlm_pool_open(uint32_t threads)
{
    (void)threads;
    return NULL;
}

void tlm_pool_close(tlm_pool *pool)
{
    (void)pool;
}

uint32_t tlm_pool_size(const tlm_pool *pool)
{
    (void)pool;
    return 1;
}

void tlm_pool_run(tlm_pool *pool, tlm_task *task, void *work)
{
    (void)pool;
    task(work, 0, 1);
}

#else

#include <pthread.h>
#include <stdlib.h>

bool tlm_pool_exists(void)
{
    return true;
}

typedef struct member {
    tlm_pool *pool;
    pthread_t thread;
    uint32_t number;
} member;

struct tlm_pool {
    pthread_mutex_t lock;
    pthread_cond_t begin; /* there is work, or the end */
    pthread_cond_t done;
    tlm_task *task;
    void *work;
    uint64_t round; /* pieces of work so far */
    uint32_t busy;
    uint32_t size;
    bool closing;
    member members[];
};

static void *serve(void *argument)
{
    member *self = argument;
    tlm_pool *pool = self->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->closing && pool->round == seen)
            pthread_cond_wait(&pool->begin, &pool->lock);
        if (pool->closing)
            break;
        seen = pool->round;
        tlm_task *task = pool->task;
        void *work = pool->work;
        pthread_mutex_unlock(&pool->lock);
        task(work, self->number, pool->size);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

tlm_pool *tlm_pool_open(uint32_t threads)
{
    if (threads < 2 || threads > 256)
        return NULL;
    tlm_pool *pool = calloc(1, sizeof *pool + threads * sizeof(member));
    if (pool == NULL)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->size = 1;
    for (uint32_t i = 1; i < threads; i++) {
        member *next = &pool->members[i];
        next->pool = pool;
        next->number = i;
        if (pthread_create(&next->thread, NULL, serve, next) != 0) {
            tlm_pool_close(pool);
            return NULL;
        }
        pool->size = i + 1; /* read by the threads only once there is work */
    }
    return pool;
}

void tlm_pool_close(tlm_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 1; i < pool->size; i++)
        pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->begin);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

uint32_t tlm_pool_size(const tlm_pool *pool)
{
    return pool->size;
}

void tlm_pool_run(tlm_pool *pool, tlm_task *task, void *work)
{
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->work = work;
    pool->busy = pool->size - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->lock);
    task(work, 0, pool->size);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

#endif
