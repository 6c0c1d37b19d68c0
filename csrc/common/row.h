// The row machinery of the level that is being compiled.
#pragma once

#include "row_op.h"

#if defined(__CUDACC__) || defined(PR_EMULATE_CUDA)
#include "cuda_row.cuh"
#else
#include "cpu_row.h"
#endif
