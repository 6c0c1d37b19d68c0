// One power-iteration step on every weight matrix of a network at once.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

// A layer: its weights as a row-major matrix, and u (rows), in the compute dtype, which is replaced.
struct SpectralLayer {
  const void* weight;
  void* u;
  int64_t rows;
  int64_t cols;
};

// batch.rows layers, on the host; sigmas: one value a layer; vs: the layers' v (cols) one after another; both in the
// compute dtype. workspace: on a GPU spectral_space() elements of the compute dtype for all layers together.
struct SpectralArgs {
  void* sigmas;
  void* vs;
  const void* layers;
  int64_t steps;
  double eps;
  void* workspace;
};

// The tiles that a layer is cut into.
#if defined(PR_EMULATE_CUDA)
constexpr int64_t kSpectralRows = 4, kSpectralCols = 96;  // small layers reach every path
#else
constexpr int64_t kSpectralRows = 64, kSpectralCols = 4096;
#endif

static constexpr int64_t spectral_row_parts(int64_t rows) { return (rows + kSpectralRows - 1) / kSpectralRows; }
static constexpr int64_t spectral_col_parts(int64_t cols) { return (cols + kSpectralCols - 1) / kSpectralCols; }

// Elements of workspace of one layer: v, the parts of Wᵀu, the parts of Wv; each in whole packs of 16 bytes.
static constexpr int64_t spectral_space(int64_t rows, int64_t cols) {
  return (cols + 3) / 4 * 4 + (spectral_row_parts(rows) * cols + 3) / 4 * 4 +
         (spectral_col_parts(cols) * rows + 3) / 4 * 4;
}

}  // namespace pyrobust

PR_DECLARE_OP(spectral_norm_step, SpectralArgs)
