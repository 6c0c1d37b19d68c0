#include "primal_dual.cuh"

PR_DEFINE_ROW_OP(primal_dual_step, PrimalDualStep, StepArgs)
