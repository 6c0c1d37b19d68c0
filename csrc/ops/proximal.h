// Proximal operators prox_λf(x) = argmin_u λ f(u) + ½‖u − x‖₂², row by row. NaN stays; where a row's result is
// undefined (NaN, ±Inf, or a negative or NaN λ) the row becomes NaN.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

struct ProxArgs {
  void* out;
  const void* x;
  RowScalar weight;
  void* workspace;
};

// by_max: threshold the group's largest magnitude instead of its l2 norm. A row is `channels` planes of batch.cols
// groups.
struct GroupProxArgs {
  void* out;
  const void* x;
  RowScalar weight;
  int64_t channels;
  int by_max;
  void* workspace;
};

}  // namespace pyrobust

PR_DECLARE_OP(prox_l0, ProxArgs)
PR_DECLARE_OP(prox_l1, ProxArgs)
PR_DECLARE_OP(prox_l2, ProxArgs)
PR_DECLARE_OP(prox_linf, ProxArgs)
PR_DECLARE_OP(prox_l0_group, GroupProxArgs)
