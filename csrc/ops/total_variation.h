// Proximal operator of the total variation of images.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

// A row is batch.cols / (height · width) planes, each an image of its own; one weight a row. x may equal out.
// workspace: on a GPU prox_tv_space() elements of the compute dtype a plane.
struct TotalVariationArgs {
  void* out;
  const void* x;
  RowScalar weight;
  int64_t height;
  int64_t width;
  int64_t steps;
  double tolerance;  // of the duality gap, relative to the value of the primal objective
  int isotropic;
  void* workspace;
};

constexpr int64_t kTvArrays =
    5;  // of a plane's size that a GPU works on: the primal image, and two iterates of the dual pair
// What a plane may take of a block's shared memory; two blocks fit a multiprocessor of compute capability 9.0.
#if defined(PR_EMULATE_CUDA)
constexpr int64_t kTvSharedBytes = 2 << 10;  // small planes reach every path
#else
constexpr int64_t kTvSharedBytes = 96 << 10;
#endif

static inline int64_t prox_tv_space(int64_t height, int64_t width, DType dtype) {
  const int64_t elements = kTvArrays * height * width;
  return elements * (dtype == DType::float64 ? 8 : 4) <= kTvSharedBytes ? 0 : elements;
}

}  // namespace pyrobust

PR_DECLARE_OP(prox_tv, TotalVariationArgs)
