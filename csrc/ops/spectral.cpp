#include "spectral.cuh"

PR_NAMESPACE_BEGIN
Status spectral_norm_step(const Batch& batch, const SpectralArgs& arguments) {
  return batch.rows == 0 ? Status{} : launch_spectral(batch, arguments);
}
PR_NAMESPACE_END
