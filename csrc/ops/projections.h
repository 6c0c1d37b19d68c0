// Projections of rows onto balls and spheres. Where the result is undefined (NaN or ±Inf in the row, a negative or NaN
// radius) every element of that row becomes NaN; the other rows are not touched by it.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

struct ProjectionArgs {
  void* out;
  const void* x;
  RowScalar radius;
  void* workspace;
};

// radius: how many groups may be non-zero; a row is `channels` planes of batch.cols groups.
struct L0BallArgs {
  void* out;
  const void* x;
  RowScalar radius;
  int64_t channels;
  void* workspace;
};

struct L1BoxArgs {
  void* out;
  const void* x;
  const void* center;
  RowScalar radius;
  double low, high;
  void* workspace;
};

// p: 1, 2 or infinity.
struct SphereArgs {
  void* out;
  const void* x;
  RowScalar radius;
  double p;
  void* workspace;
};

}  // namespace pyrobust

PR_DECLARE_OP(project_simplex, ProjectionArgs)
PR_DECLARE_OP(project_l1_ball, ProjectionArgs)
PR_DECLARE_OP(project_l2_ball, ProjectionArgs)
PR_DECLARE_OP(project_linf_ball, ProjectionArgs)
PR_DECLARE_OP(project_l0_ball, L0BallArgs)
PR_DECLARE_OP(project_l1_box, L1BoxArgs)
PR_DECLARE_OP(project_lp_sphere, SphereArgs)
