// The CUDA execution model on the host, so that kernels run under the sanitizers without a GPU (PR_EMULATE_CUDA).
//
// Each thread of a block is a fiber: all run on one host thread, and control passes on only where a thread waits. A run
// is therefore repeatable, and ThreadSanitizer, to which every fiber is a thread of its own, finds a race by what
// orders two accesses and not by luck. Only barriers order memory here; a shuffle does not, and neither does one block
// before another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "types.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the running fiber

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }

namespace emulation {

// Runs body(argument) in every thread of `blocks` blocks, each with `shared` bytes of dynamic shared memory. The blocks
// of a cluster run side by side, clusters in turn.
void run_grid(int64_t blocks, int threads, int cluster, int64_t shared, void (*body)(void*), void* argument);

// A block's shared memory, static and dynamic together, without a call of cudaFuncSetAttribute(): small, so that small
// rows need one.
constexpr int64_t kUnaskedShared = 3 << 10;
// The dynamic shared memory that a kernel may have from now on; and the check of a launch against it, which does not
// return where a GPU would refuse.
void allow_shared(const void* kernel, int64_t bytes);
void check_shared(const void* kernel, int64_t bytes);

// A memory-ordering barrier: of a block, of a cluster, of the lanes in a warp's mask.
enum class Scope { block, cluster, warp };
void barrier(Scope scope, unsigned mask = ~0u);
uint64_t shuffle(unsigned mask, uint64_t bits, int source_lane);

// Shared memory: arrays are declared before main() and exist once a block, each its own heap object, filled with
// garbage; number 0 is the dynamic one.
int declare_shared(size_t bytes);
void* shared_array(int id);
void* in_block(void* shared, int rank);
int cluster_blocks();
int cluster_rank();

template <class V, int N>
struct Shared {
  static const int id;
};
template <class V, int N>
const int Shared<V, N>::id = declare_shared(sizeof(V) * N);

// What the tests set.
struct Settings {
  int max_cluster = 1;
  int max_shared = 4096;   // bytes a block may ask for, static and dynamic: so that small rows outgrow it
  bool backwards = false;  // let the last thread run first: results must not depend on it
  // Fault to plant: every second barrier of a scope does nothing, beginning with the first (0) or second (1); -1: none.
  Scope broken_scope = Scope::block;
  int broken_turn = -1;
};
extern Settings settings;

}  // namespace emulation

constexpr int cudaDevAttrMaxSharedMemoryPerBlockOptin = 97;
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  return *value = emulation::settings.max_shared, cudaSuccess;
}

constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;
inline cudaError_t cudaFuncSetAttribute(const void* kernel, int, int value) {
  return emulation::allow_shared(kernel, value), cudaSuccess;
}

constexpr int cudaLaunchAttributeClusterDimension = 4;
struct cudaLaunchAttribute {
  int id;
  struct {
    dim3 clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
template <class... Formal, class... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Formal...), const Actual&... actual) {
  emulation::check_shared(reinterpret_cast<const void*>(kernel), int64_t(config->dynamicSmemBytes));
  auto call = [&] { kernel(actual...); };
  emulation::run_grid(
      config->gridDim.x, int(config->blockDim.x), config->numAttrs ? int(config->attrs->val.clusterDim.x) : 1,
      int64_t(config->dynamicSmemBytes), [](void* opaque) { (*static_cast<decltype(call)*>(opaque))(); }, &call);
  return cudaSuccess;
}

inline void __syncthreads() { emulation::barrier(emulation::Scope::block); }
inline void __syncwarp(unsigned mask = ~0u) { emulation::barrier(emulation::Scope::warp, mask); }

template <class V>
V __shfl_sync(unsigned mask, V value, int source_lane) {
  static_assert(sizeof(V) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = emulation::shuffle(mask, bits, source_lane % 32);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class V>
V __shfl_xor_sync(unsigned mask, V value, int lane_mask) {
  return __shfl_sync(mask, value, int(threadIdx.x % 32) ^ lane_mask);
}

namespace pyrobust::emulated {

inline int emulated_max_cluster() { return emulation::settings.max_cluster; }

template <class V>
V* dynamic_shared() {
  return static_cast<V*>(emulation::shared_array(0));
}

template <class V, int N>
V* block_shared() {
  return static_cast<V*>(emulation::shared_array(emulation::Shared<V, N>::id));
}
template <class V>
V* in_block(V* shared, int rank) {
  return static_cast<V*>(emulation::in_block(shared, rank));
}
inline int cluster_blocks() { return emulation::cluster_blocks(); }
inline int cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_barrier() { emulation::barrier(emulation::Scope::cluster); }

}  // namespace pyrobust::emulated
