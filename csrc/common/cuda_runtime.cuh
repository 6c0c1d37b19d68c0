// The CUDA runtime as the row kernels use it: device guard, launches, teams of threads and their reductions.
// With PR_EMULATE_CUDA the same names come from the host emulation in tests/emulation.
#pragma once

#include "arrays.h"

#if defined(PR_EMULATE_CUDA)
#include "cuda_emulation.h"
#else
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#endif

PR_NAMESPACE_BEGIN

inline Status cuda_status(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return {Code::cuda_error, cudaGetErrorString(error)};
}

// Makes `device` current and puts the caller's device back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    error_ = cudaGetDevice(&previous_);
    changed_ = error_ == cudaSuccess && previous_ != device;
    if (changed_) error_ = cudaSetDevice(device);
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int previous_ = 0;
  bool changed_ = false;
  cudaError_t error_;
};

// Blocks that may share a row: clusters came with compute capability 9.0; 8 is the portable size. It is the code that
// has to know of them, and a device runs what was compiled for the newest architecture up to its own.
inline int max_cluster([[maybe_unused]] int device) {
#if defined(PR_EMULATE_CUDA)
  return emulated_max_cluster();
#else
  int major = 0, minor = 0, compiled_for = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  for (const int architecture : {__CUDA_ARCH_LIST__})  // in rising order
    if (architecture <= 100 * major + 10 * minor) compiled_for = architecture;
  return compiled_for >= 900 ? 8 : 1;
#endif
}

constexpr int64_t kReductionBytes = 2048;  // of shared memory, more than the arrays that reductions declare
#if defined(PR_EMULATE_CUDA)
constexpr int64_t kUnaskedSharedBytes = emulation::kUnaskedShared;
#else
constexpr int64_t kUnaskedSharedBytes = 48 << 10;  // what a block may have, all told, without asking
#endif

// Dynamic shared memory that a block may ask for.
inline int64_t max_shared_bytes(int device) {
  int bytes = 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes - kReductionBytes;
}

// `shared` bytes of dynamic shared memory for each block of each team.
template <class... Formal, class... Actual>
Status launch(void (*kernel)(Formal...), int64_t teams, int threads, int cluster, int64_t shared, const Batch& batch,
              const Actual&... rest) {
  if (teams > INT32_MAX / cluster) return {Code::invalid_argument, "more rows than a grid has blocks, 2^31 - 1"};
  if (shared > kUnaskedSharedBytes - kReductionBytes) {
    // Always for the most: threads that launch at once must not lower each other's limit.
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(max_shared_bytes(batch.device)));
    if (error != cudaSuccess) return cuda_status(error);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = {static_cast<unsigned>(teams * cluster)};
  config.blockDim = {static_cast<unsigned>(threads)};
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = static_cast<cudaStream_t>(batch.stream);
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  return cuda_status(cudaLaunchKernelEx(&config, kernel, batch, rest...));
}

// One store: written as an assignment, nvcc makes four of it where it sees how the words came about.
PR_FN void store_16_bytes(uint4* to, const uint4& words) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
#else
  *to = words;
#endif
}

#if !defined(PR_EMULATE_CUDA)
// The dynamic shared memory of the block.
template <class V>
PR_FN V* dynamic_shared() {
  extern __shared__ uint4 memory[];  // 16-byte aligned
  return reinterpret_cast<V*>(memory);
}

// N values of type V that the block shares: the same array wherever the same V and N are asked for.
template <class V, int N>
PR_FN V* block_shared() {
  __shared__ V memory[N];
  return memory;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
namespace cg = cooperative_groups;
PR_FN int cluster_blocks() { return int(cg::this_cluster().num_blocks()); }
PR_FN int cluster_rank() { return int(cg::this_cluster().block_rank()); }
PR_FN void cluster_barrier() { cg::this_cluster().sync(); }
// Where the cluster's block of that rank has what `shared` points to.
template <class V>
PR_FN V* in_block(V* shared, int rank) {
  return cg::this_cluster().map_shared_rank(shared, rank);
}
#else
PR_FN int cluster_blocks() { return 1; }
PR_FN int cluster_rank() { return 0; }
PR_FN void cluster_barrier() {}
template <class V>
PR_FN V* in_block(V* shared, int) {
  return shared;
}
#endif
#endif

PR_FN int64_t team_index() { return blockIdx.x / cluster_blocks(); }
PR_FN int team_member() { return cluster_rank() * int(blockDim.x) + int(threadIdx.x); }
PR_FN int team_size() { return cluster_blocks() * int(blockDim.x); }

constexpr unsigned kWholeWarp = 0xffffffffu;

// What the lane whose number differs in `mask` has.
template <class V>
PR_FN V of_lane(V value, int mask) {
  return __shfl_xor_sync(kWholeWarp, value, mask);
}
template <class V>
PR_FN Two<V> of_lane(Two<V> value, int mask) {
  return {of_lane(value.first, mask), of_lane(value.second, mask)};
}

// Combines `value` over the team in a fixed order; every member gets the result.
template <class V, class Combine>
PR_FN V team_reduce(V value, Combine combine) {
  const int warp_count = int(blockDim.x) / 32, warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  for (int offset = 16; offset > 0; offset /= 2) value = combine(value, of_lane(value, offset));
  if (warp_count > 1) {
    V* const warps = block_shared<V, 32>();
    __syncthreads();  // the slots may still be read from the reduction before
    if (lane == 0) warps[warp] = value;
    __syncthreads();
    value = warps[0];
    for (int w = 1; w < warp_count; ++w) value = combine(value, warps[w]);
  }
  if (cluster_blocks() > 1) {
    V* const block = block_shared<V, 1>();
    if (threadIdx.x == 0) *block = value;
    cluster_barrier();
    value = *in_block(block, 0);
    for (int b = 1; b < cluster_blocks(); ++b) value = combine(value, *in_block(block, b));
    cluster_barrier();  // no block may overwrite its slot, or leave, while another reads it
  }
  return value;
}

PR_FN double team_sum(float value) {
  return team_reduce(double(value), [](double a, double b) { return a + b; });
}
PR_FN double team_sum(double value) {
  return team_reduce(value, [](double a, double b) { return a + b; });
}
template <class C>
PR_FN Two<double> team_sum2(Two<C> value) {
  using Sums = Two<double>;
  return team_reduce(Sums{double(value.first), double(value.second)},
                     [](Sums a, Sums b) { return Sums{a.first + b.first, a.second + b.second}; });
}
template <class Bits>
PR_FN Bits team_max(Bits value) {
  return team_reduce(value, [](Bits a, Bits b) { return a > b ? a : b; });
}

// The larger value; of equal ones the first place.
template <class C>
PR_FN Most<C> team_most(Most<C> mine) {
  const C value = team_reduce(mine.value, [](C a, C b) { return b > a ? b : a; });
  const int64_t candidate = mine.value == value ? mine.place : int64_t(1) << 62;
  return {value, team_reduce(candidate, [](int64_t a, int64_t b) { return b < a ? b : a; })};
}

PR_FN void team_sync() {
  if (cluster_blocks() > 1) {
    cluster_barrier();
  } else {
    __syncthreads();
  }
}

PR_NAMESPACE_END
