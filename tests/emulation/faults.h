// Kernels with a fault that the emulation or a sanitizer must report, and two without: the checks of the checks.
#pragma once

#include <cstring>

#include "common/cuda_runtime.cuh"

namespace test {

using pyrobust::Batch;
using namespace pyrobust::emulated;

// Neighbours in a warp exchange through shared memory, ordered by __syncwarp() or, wrongly, by a shuffle.
template <bool correct>
void exchange(Batch, int* out) {
  int* const slots = block_shared<int, 64>();
  slots[threadIdx.x] = int(threadIdx.x);
  if (correct) __syncwarp();
  const int zero = __shfl_xor_sync(kWholeWarp, 0, 1);
  out[threadIdx.x] = slots[threadIdx.x ^ 1] + zero;
}

// Every block writes what the next one writes too.
template <bool correct>
void overlap(Batch, int* out) {
  out[correct ? blockIdx.x * blockDim.x + threadIdx.x : (blockIdx.x + threadIdx.x) % blockDim.x] = 1;
}

inline void shared_overflow(Batch, int* out) {
  block_shared<int, 32>()[threadIdx.x] = 1;
  out[threadIdx.x] = 0;
}

inline void local_overflow(Batch, int* out) {
  int items[8] = {};
  for (int i = 0; i <= out[0]; ++i) items[i] = i;
  out[threadIdx.x] = items[threadIdx.x % 8];
}

inline void early_exit(Batch, int* out) {
  if (threadIdx.x < 32) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

inline void split_warp(Batch, int* out) {
  if (threadIdx.x % 2) __syncwarp();
  out[threadIdx.x] = __shfl_xor_sync(kWholeWarp, 1, 1);
}

inline void dynamic_shared_user(Batch, int* out) {
  dynamic_shared<int>()[threadIdx.x] = 1;
  out[threadIdx.x] = 1;
}
// A launch that asks for no more shared memory than is had without asking, but for the static arrays.
inline void launch_unasked(int* out) {
  cudaLaunchConfig_t config = {};
  config.gridDim = {1}, config.blockDim = {64}, config.dynamicSmemBytes = emulation::kUnaskedShared;
  cudaLaunchKernelEx(&config, dynamic_shared_user, Batch{}, out);
}

struct FaultyKernel {
  const char* name;
  void (*kernel)(Batch, int*);
};
inline const FaultyKernel kFaultyKernels[] = {
    {"none:exchange", exchange<true>},
    {"none:overlap", overlap<true>},
    {"shuffle-as-barrier", exchange<false>},
    {"overlapping-blocks", overlap<false>},
    {"shared-overflow", shared_overflow},
    {"local-overflow", local_overflow},
    {"early-exit", early_exit},
    {"split-warp", split_warp},
};

// Whether there is a kernel of that name, which then ran.
inline bool run_faulty_kernel(const char* name) {
  if (std::strcmp(name, "unasked-shared") == 0) {
    int memory[64] = {};
    launch_unasked(memory);
    return true;
  }
  for (const FaultyKernel& fault : kFaultyKernels) {
    if (std::strcmp(name, fault.name) != 0) continue;
    int memory[128] = {8};
    int* const out = memory;
    launch(fault.kernel, 2, 64, 1, 0, Batch{}, out);
    return true;
  }
  return false;
}

}  // namespace test
