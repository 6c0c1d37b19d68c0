#include "sampling.cuh"

PR_DEFINE_ROW_OP(sample_lp_ball, SampleLpBall, SampleArgs)
