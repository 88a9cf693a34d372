/* Runs one entry of a variant's shared object without Python.
 * host MODEL.so ENTRY THREADS DIMS WEIGHT... -- INPUT... -- OUTPUT:BYTES...
 * DIMS: values joined by commas, or "-" for none. WEIGHT, INPUT: files of raw bytes. OUTPUT: file to write.
 * An output whose shape depends on data is OUTPUT:?ITEM,RANK instead, and so are all outputs before it. */
#define _GNU_SOURCE
#include "tessera_model.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };
static void *pointers[3][MOST];
static int64_t dims[MOST], shapes[MOST];

static void *allocate(void *context, uint64_t bytes, uint64_t alignment) {
  (void)context;
  return aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
}
static void release(void *context, void *pointer) { (void)context, free(pointer); }

static void *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) perror(path), exit(2);
  long size = ftell(file);
  void *data = allocate(0, (uint64_t)size, 64);
  rewind(file);
  if (fread(data, 1, (size_t)size, file) != (size_t)size) perror(path), exit(2);
  fclose(file);
  return data;
}

#define FUNCTION(name) __typeof__(&name) name##_ = (__typeof__(&name))dlsym(library, #name)

int main(int argc, char **argv) {
  void *library = argc > 4 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : 0;
  if (!library) fprintf(stderr, "usage or dlopen: %s\n", argc > 4 ? dlerror() : "see host.c"), exit(2);
  FUNCTION(tessera_prepare); FUNCTION(tessera_run); FUNCTION(tessera_pool_create);
  FUNCTION(tessera_pool_parallel_for); FUNCTION(tessera_pool_destroy);
  int group = 0, count[3] = {0, 0, 0}, rank = 0;
  char *names[MOST], *end = argv[4];
  while (*end && *end != '-') dims[rank++] = strtoll(end, &end, 10), end += *end == ',';
  for (int i = 5; i < argc; i++) {
    if (!strcmp(argv[i], "--")) { group++; continue; }
    char *colon = group == 2 ? strrchr(argv[i], ':') : 0;
    if (colon) *colon = 0, names[count[2]] = argv[i];
    pointers[group][count[group]++] = !colon ? read_file(argv[i]) : colon[1] == '?' ? 0 : malloc(strtoull(colon + 1, 0, 10) + 1);
    if (colon) *colon = ':';
  }
  tessera_services services = {sizeof services, 1, 0, allocate, release, 0, (void *)pthread_create,
                               (void *)pthread_join, (void *)sem_init, (void *)sem_wait, (void *)sem_post, 0, 0,
                               sched_yield, sched_getcpu, (void *)sched_getaffinity, (void *)pthread_setaffinity_np};
  void *pool = tessera_pool_create_(&services, atoi(argv[3]));
  services.context = pool, services.parallel_for = tessera_pool_parallel_for_;
  tessera_error error = {0, -1, {0}};
  tessera_plan plan = {0, shapes};
  uint32_t entry = (uint32_t)atoi(argv[2]);
  int32_t status = tessera_prepare_(entry, dims, &plan, &error);
  tessera_call call = {sizeof call, entry, dims, (const void *const *)pointers[1], (const void *const *)pointers[0],
                       pointers[2], allocate(0, plan.workspace_bytes, 64), &services, &error, shapes};
  if (!status) status = tessera_run_(&call);
  if (status) fprintf(stderr, "status %d at node %d\n", status, error.node), exit(1);
  int64_t *extent = shapes;
  for (int i = 0; i < count[2]; i++) {
    char *colon = strrchr(names[i], ':');
    size_t bytes = strtoull(colon + (colon[1] == '?') + 1, &end, 10);
    for (long left = *end == ',' ? strtol(end + 1, 0, 10) : 0; left > 0; left--) bytes *= (size_t)*extent++;
    FILE *file = (*colon = 0, fopen(names[i], "wb"));
    if (!file || fwrite(pointers[2][i], 1, bytes, file) != bytes || fclose(file)) perror(names[i]), exit(2);
  }
  tessera_pool_destroy_(pool, &services);
  return 0;
}
