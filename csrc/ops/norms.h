// Row norms, Hölder-dual directions, and the power-iteration step built on both.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

// out: one value a row, in the compute dtype. p: 0, 1, 2 or infinity; for p = 0 a row is `channels` planes of
// batch.cols groups.
struct NormArgs {
  void* out;
  const void* x;
  double p;
  int64_t channels;
  void* workspace;
};

struct DualArgs {
  void* out;
  const void* z;
  double p;
  void* workspace;
};

// value, change: one value a row, in the compute dtype. previous may be null where alpha is infinite: change is then
// NaN.
struct PowerStepArgs {
  void* direction;
  void* value;
  void* change;
  const void* z;
  const void* previous;
  double p;
  double alpha;
  void* workspace;
};

}  // namespace pyrobust

PR_DECLARE_OP(lp_norm, NormArgs)
PR_DECLARE_OP(dual_normalize, DualArgs)
PR_DECLARE_OP(power_iteration_step, PowerStepArgs)
