#include "cuda_info.h"
#include "cuda_row.cuh"

namespace pyrobust {
namespace {

__global__ void probe() {}  // is built for the same architectures as all kernels

}  // namespace

std::vector<std::string> cuda_devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();  // clear it: a machine without a GPU is no failure
    return {std::string("none: ") + cudaGetErrorString(error)};
  }
  std::vector<std::string> lines;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, device) != cudaSuccess) continue;
    lines.push_back(std::string(p.name) + ", compute capability " + std::to_string(p.major) + "." +
                    std::to_string(p.minor) + ", " + std::to_string(p.totalGlobalMem >> 20) + " MiB");
  }
  return lines;
}

std::string cuda_problem(int device) {
  const cuda::DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  const cudaError_t error = guard.error() == cudaSuccess ? cudaFuncGetAttributes(&attributes, probe) : guard.error();
  if (error == cudaSuccess) return {};
  cudaGetLastError();  // clear it
  return cudaGetErrorString(error);
}

bool outgrows_chip(const Batch& batch) {
  switch (batch.dtype) {
    case DType::float32:
      return cuda::team_shape<float>(batch.cols, batch.device).shared == 0;
    case DType::float64:
      return cuda::team_shape<double>(batch.cols, batch.device).shared == 0;
    default:
      return cuda::team_shape<float16>(batch.cols, batch.device).shared == 0;
  }
}

}  // namespace pyrobust
