/* The thread pool that every variant exports, in C for the tests: built on nothing but the services table. */
#include "tessera_model.h"

enum { MAX_THREADS = 64 };
typedef struct { _Alignas(64) unsigned char bytes[64]; } semaphore;
typedef struct pool {
  semaphore wake[MAX_THREADS], done;
  uint64_t handles[MAX_THREADS];
  tessera_services services;
  int32_t workers, busy, stop;
  tessera_body body;
  void *argument;
  int64_t count, next;
  int64_t failed_index;
  int32_t failed_status;
  int32_t lock;
  struct { struct pool *pool; int32_t index; } seats[MAX_THREADS];
} pool;

static void record(pool *p, int64_t index, int32_t status) {
  while (__atomic_exchange_n(&p->lock, 1, __ATOMIC_ACQUIRE)) {}
  if (index < p->failed_index) p->failed_index = index, p->failed_status = status;
  __atomic_store_n(&p->lock, 0, __ATOMIC_RELEASE);
}

static void work(pool *p) {
  for (int64_t i; (i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < p->count;) {
    int32_t status = p->body(p->argument, i);
    if (status) record(p, i, status);
  }
}

static void *worker(void *argument) {
  pool *p = *(pool **)argument;
  int32_t index = *(int32_t *)((char *)argument + sizeof(pool *));
  for (;;) {
    while (p->services.semaphore_wait(&p->wake[index])) {}
    if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) return 0;
    work(p);
    p->services.semaphore_post(&p->done);
  }
}

void *tessera_pool_create(const tessera_services *services, int32_t threads) {
  if (threads < 1 || threads > MAX_THREADS) return 0;
  pool *p = services->allocate(services->context, sizeof(pool), 64);
  if (!p) return 0;
  p->services = *services, p->workers = threads - 1, p->busy = p->stop = p->lock = 0;
  services->semaphore_init(&p->done, 0, 0);
  for (int32_t i = 0; i < p->workers; i++) {
    services->semaphore_init(&p->wake[i], 0, 0);
    p->seats[i].pool = p, p->seats[i].index = i;
    if (services->thread_create(&p->handles[i], 0, worker, &p->seats[i])) p->workers = i;
  }
  return p;
}

int32_t tessera_pool_parallel_for(void *handle, tessera_body body, void *argument, int64_t count) {
  pool *p = handle;
  if (p->workers == 0 || __atomic_exchange_n(&p->busy, 1, __ATOMIC_ACQUIRE)) {
    for (int64_t i = 0; i < count; i++) {
      int32_t status = body(argument, i);
      if (status) return status;
    }
    return TESSERA_OK;
  }
  p->body = body, p->argument = argument, p->count = count, p->next = 0;
  p->failed_index = INT64_MAX, p->failed_status = TESSERA_OK;
  for (int32_t i = 0; i < p->workers; i++) p->services.semaphore_post(&p->wake[i]);
  work(p);
  for (int32_t i = 0; i < p->workers; i++)
    while (p->services.semaphore_wait(&p->done)) {}
  int32_t status = p->failed_status;
  __atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
  return status;
}

void tessera_pool_destroy(void *handle, const tessera_services *services) {
  pool *p = handle;
  __atomic_store_n(&p->stop, 1, __ATOMIC_RELEASE);
  for (int32_t i = 0; i < p->workers; i++) services->semaphore_post(&p->wake[i]);
  for (int32_t i = 0; i < p->workers; i++) services->thread_join(p->handles[i], 0);
  services->release(services->context, p);
}
