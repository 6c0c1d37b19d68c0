#include "norms.cuh"

PR_DEFINE_ROW_OP(lp_norm, LpNorm, NormArgs)
PR_DEFINE_ROW_OP(dual_normalize, DualNormalize, DualArgs)
PR_DEFINE_ROW_OP(power_iteration_step, PowerIterationStep, PowerStepArgs)
