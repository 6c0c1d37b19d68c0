#include "sigma_zero.cuh"

PR_DEFINE_ROW_OP(sigma_zero_step, SigmaZeroStep, SigmaZeroArgs)
