/* A variant written by hand: the ABI of tessera_model.h as a compiler would fill it, small enough to be read.
 * main:  y[N,3] = x[N,3] * scale[3] + shift[3];  last[1] = N.   Node 1 refuses x[0,0] == -1, guard 0 wants N <= 1000.
 * step:  y[3] = x[3] + s[3];  t[3] = y[3], carried as the next s.
 * spin:  c[1] = sum of x[N,3] through the workspace, row by row.
 * bits:  o[N] = p[N], 16 bits each.
 * wait:  w[1] = x[1], never: launches until the cancel flag is raised; refused without a flag. */
#include "tessera_model.h"

typedef struct { const tessera_call *call; int64_t rows; } job;

const char *tessera_describe(void) {
  return "{\"abi\":1,\"entries\":[\"main\",\"step\",\"spin\",\"bits\",\"wait\"],\"weights\":2}";
}

static int32_t fail(tessera_error *error, int32_t status, int32_t node, int64_t left, int64_t right) {
  if (error) {
    error->status = status, error->node = node;
    error->detail[0] = 0, error->detail[1] = left, error->detail[2] = right, error->detail[3] = 0;
  }
  return status;
}

int32_t tessera_prepare(uint32_t entry, const int64_t *dims, tessera_plan *plan, tessera_error *error) {
  if (entry == 1) {
    plan->workspace_bytes = 0, plan->output_shapes[0] = plan->output_shapes[1] = 3;
    return TESSERA_OK;
  }
  if (entry == 4) {
    plan->workspace_bytes = 0, plan->output_shapes[0] = 1;
    return TESSERA_OK;
  }
  if (dims[0] > 1000) return fail(error, TESSERA_GUARD_FAILED, -1, dims[0], 1000);
  plan->workspace_bytes = entry == 2 ? (uint64_t)dims[0] * 8 : 0;
  plan->output_shapes[0] = entry == 2 ? 1 : dims[0];
  if (entry == 0) plan->output_shapes[1] = 3, plan->output_shapes[2] = 1;
  return TESSERA_OK;
}

static int32_t scale_row(void *argument, int64_t row) {
  const tessera_call *call = ((job *)argument)->call;
  const float *x = call->inputs[0], *scale = call->weights[0], *shift = call->weights[1];
  if (x[row * 3] == -1.0f) return fail(call->error, TESSERA_INDEX_OUT_OF_RANGE, 1, 0, 0);
  for (int64_t i = 0; i < 3; i++) ((float *)call->outputs[0])[row * 3 + i] = x[row * 3 + i] * scale[i] + shift[i];
  return TESSERA_OK;
}

static int32_t sum_row(void *argument, int64_t row) {
  const tessera_call *call = ((job *)argument)->call;
  const float *x = call->inputs[0];
  double *sums = call->workspace;
  sums[row] = 0;
  for (int64_t again = 0; again < 2048; again++) /* long enough that two calls meet in here */
    for (int64_t i = 0; i < 3; i++) sums[row] += x[row * 3 + i] / 2048;
  return TESSERA_OK;
}

int32_t tessera_run(const tessera_call *call) {
  job work = {call, call->entry == 1 || call->entry == 4 ? 1 : call->dims[0]};
  if (call->entry == 1) {
    for (int i = 0; i < 3; i++)
      ((float *)call->outputs[1])[i] = ((float *)call->outputs[0])[i] =
          ((const float *)call->inputs[0])[i] + ((const float *)call->inputs[1])[i];
    return TESSERA_OK;
  }
  if (call->entry == 3) {
    for (int64_t i = 0; i < work.rows; i++) ((uint16_t *)call->outputs[0])[i] = ((const uint16_t *)call->inputs[0])[i];
    return TESSERA_OK;
  }
  const tessera_services *services = call->services;
  if (call->entry == 4) {
    if (!services->cancel) return fail(call->error, TESSERA_BAD_ARGUMENT, 0, 0, 0);
    while (!*services->cancel) {}
    return fail(call->error, TESSERA_CANCELLED, 1, 0, 0);
  }
  int32_t status =
      services->parallel_for(services->context, call->entry == 2 ? sum_row : scale_row, &work, work.rows);
  if (status) return status;
  if (call->entry == 0) {
    *(int64_t *)call->outputs[1] = work.rows;
    return TESSERA_OK;
  }
  double total = 0;
  for (int64_t row = 0; row < work.rows; row++) total += ((double *)call->workspace)[row];
  *(double *)call->outputs[0] = total;
  return TESSERA_OK;
}
