#include "total_variation.cuh"

PR_NAMESPACE_BEGIN
Status prox_tv(const Batch& batch, const TotalVariationArgs& arguments) {
  if (batch.rows == 0 || batch.cols == 0) return {};
  switch (batch.dtype) {
    case DType::float32:
      return launch_tv<float>(batch, arguments);
    case DType::float64:
      return launch_tv<double>(batch, arguments);
    case DType::float16:
      return launch_tv<float16>(batch, arguments);
    case DType::bfloat16:
      return launch_tv<bfloat16>(batch, arguments);
  }
  return {Code::invalid_argument, "unknown dtype"};
}
PR_NAMESPACE_END
