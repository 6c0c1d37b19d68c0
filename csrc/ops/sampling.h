// Uniform samples of norm balls, keyed by (seed, sample id, step, element): never by the place in a batch.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

// ids: one int64 a row. p: 1, 2 or infinity.
struct SampleArgs {
  void* out;
  const void* ids;
  RowScalar radius;
  int64_t seed;
  int64_t step;
  double p;
  void* workspace;
};

}  // namespace pyrobust

PR_DECLARE_OP(sample_lp_ball, SampleArgs)
