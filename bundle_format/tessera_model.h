/* The C ABI of a Tessera CPU variant, version 1.
 *
 * A variant is one shared object without undefined symbols. It exports the six functions at the end of this file and
 * keeps no state of its own, apart from pools that a caller creates. All functions may be called from any thread.
 *
 * To run an entry: check `tessera_describe`, fill `dims` with the values of the entry's symbolic dimensions in the order
 * of the bundle's config, call `tessera_prepare` for the workspace size and the outputs' shapes, allocate, fill a
 * `tessera_call`, call `tessera_run`.
 *
 * The shape of an output may depend on data. tessera_prepare then writes -1 for such a dimension, the caller sets the
 * output's pointer to NULL, and tessera_run allocates exactly what the output needs by services->allocate and stores the
 * pointer in `outputs` and the shape in `output_shapes`. The memory is the caller's from then on. A run that fails has
 * released what it allocated and left NULL.
 */
#ifndef TESSERA_MODEL_H
#define TESSERA_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TESSERA_ABI_VERSION 1

/* What every int32_t that these functions return means. */
enum {
  TESSERA_OK = 0,
  TESSERA_INDEX_OUT_OF_RANGE = 1,
  TESSERA_DIVISION_BY_ZERO = 2,
  TESSERA_SIZE_BEYOND_BOUND = 3,
  TESSERA_GUARD_FAILED = 4, /* a dimension is not what the build assumed */
  TESSERA_OUT_OF_MEMORY = 5,
  TESSERA_CANCELLED = 6,
  TESSERA_BAD_ARGUMENT = 7,
  TESSERA_RESERVED = 8,
  TESSERA_NOT_FINITE = 9,    /* a debug build only: a node gave NaN or an infinity */
  TESSERA_OUT_OF_BOUNDS = 10 /* a debug build only: a node wrote past the end of a value */
};

/* One piece of a parallel loop; a status other than TESSERA_OK ends the run with that status. It uses less than 640 KiB
 * of the stack of its thread. */
typedef int32_t (*tessera_body)(void *argument, int64_t index);

/* What the object may ask of the process. The members from thread_create to semaphore_post are needed only by
 * tessera_pool_create; POSIX's functions of the like names fit. */
typedef struct tessera_services {
  uint32_t size;    /* sizeof(tessera_services), or 104 without the last three members, or 96 without the last four */
  uint32_t version; /* TESSERA_ABI_VERSION */
  void *context;    /* first argument of allocate, release, parallel_for and profile */
  /* NULL when there is no memory. Both may be NULL for tessera_run unless an entry has sizes that depend on data; any
   * thread that runs an entry calls them. */
  void *(*allocate)(void *context, uint64_t bytes, uint64_t alignment);
  void (*release)(void *context, void *pointer);
  /* Runs body for 0 .. count-1 in any order and returns when all are done: 0, or the status of the lowest index that
   * failed. Must not be NULL for tessera_run. */
  int32_t (*parallel_for)(void *context, tessera_body body, void *argument, int64_t count);
  int32_t (*thread_create)(void *handle_out, const void *attributes, void *(*entry)(void *), void *argument);
  int32_t (*thread_join)(uint64_t handle, void **result);
  int32_t (*semaphore_init)(void *semaphore, int32_t shared, uint32_t value); /* 64 bytes, given by the pool */
  int32_t (*semaphore_wait)(void *semaphore);
  int32_t (*semaphore_post)(void *semaphore);
  void (*profile)(void *context, uint32_t launch, int32_t phase); /* NULL: off; phase 0 begins a launch, 1 ends it */
  const volatile int32_t *cancel; /* NULL: never; another value than 0 ends the run between two launches */
  /* POSIX's sched_yield: a thread of the pool that waits lets others have its processor. NULL, or a table that ends
   * before it: it keeps the processor until it sleeps. */
  int32_t (*thread_yield)(void);
  /* Linux's sched_getcpu, sched_getaffinity and pthread_setaffinity_np: a thread of the pool that slept is woken on
   * another processor than its caller's, of those that the caller may use. Any NULL, or a table that ends before them:
   * wherever the system wakes it. */
  int32_t (*current_cpu)(void);
  int32_t (*get_affinity)(int32_t thread, uint64_t bytes, void *mask);
  int32_t (*set_affinity)(uint64_t handle, uint64_t bytes, const void *mask);
} tessera_services;

typedef struct tessera_error {
  int32_t status;
  int32_t node;      /* index into the config's "nodes", -1 when unknown */
  /* TESSERA_GUARD_FAILED: index into the config's "guards", left value, right value, 0.
   * TESSERA_SIZE_BEYOND_BOUND: the size and the largest that it may be; zeros when a kernel found it. */
  int64_t detail[4];
} tessera_error;

typedef struct tessera_call {
  uint32_t size; /* sizeof(tessera_call), or 64 without the last member */
  uint32_t entry;
  const int64_t *dims;         /* the entry's symbolic dimensions */
  const void *const *inputs;   /* dense, row-major */
  const void *const *weights;  /* the variant's weights, each aligned to 64 bytes */
  void **outputs;              /* dense, row-major; NULL for those whose shape depends on data */
  void *workspace;             /* aligned to 64 bytes */
  const tessera_services *services;
  tessera_error *error; /* filled when the status is not TESSERA_OK; may be NULL */
  /* The caller's array, filled with the dimensions of all outputs, one after another. Needed by entries that have outputs
   * whose shape depends on data, and left alone by the others. */
  int64_t *output_shapes;
} tessera_call;

typedef struct tessera_plan {
  uint64_t workspace_bytes;
  int64_t *output_shapes; /* the caller's array: the dimensions of all outputs, one after another, -1 where unknown */
} tessera_plan;

/* JSON, ended by NUL: {"abi": 1, "entries": ["main"], "weights": 3} */
const char *tessera_describe(void);

/* JSON, ended by NUL: {"inputs": [1], "outputs": [1]}: how many inputs the code of each entry looks at, at least, and how
 * many outputs it has. Code of formats before 1.4 does not export it. */
const char *tessera_signature(void);

/* Checks the guards of an entry and fills the plan. */
int32_t tessera_prepare(uint32_t entry, const int64_t *dims, tessera_plan *plan, tessera_error *error);

int32_t tessera_run(const tessera_call *call);

/* A pool of `threads` threads, of which the caller of a run is one; memory comes from services->allocate, which must not
 * be NULL here. NULL when a thread or memory cannot be had. */
void *tessera_pool_create(const tessera_services *services, int32_t threads);

/* Fits tessera_services.parallel_for with the pool as context. While the pool is busy with another loop, it runs the
 * loop on the calling thread alone. */
int32_t tessera_pool_parallel_for(void *pool, tessera_body body, void *argument, int64_t count);

void tessera_pool_destroy(void *pool, const tessera_services *services);

#ifdef __cplusplus
}
#endif

#endif
