// One row on a GPU: the passes of cpu_row.h, run by the team of threads that holds the row on chip.
//
// A team is one block, or on Hopper and later a cluster of up to 8 blocks when the row outgrows one; each block holds a
// contiguous part of the row in its shared memory, and reductions go through the cluster's distributed shared memory. A
// thread reads and writes packs of 16 bytes, and of the kept values only those that it put there, so passes need no
// barriers between them. Rows that no team can hold keep their values in a workspace in global memory; nothing else
// changes. Every reduction has a fixed order (thread, warp, block, cluster): results do not depend on timing or on
// other rows. As on the CPU, only so many numbers are added in their own precision, and those sums in double.
#pragma once

#include "arrays.h"
#include "cuda_runtime.cuh"

PR_NAMESPACE_BEGIN

template <class C, int N>
struct Pack {
  C item[N];
};

#if defined(PR_EMULATE_CUDA)
constexpr int kMostThreads = 64;  // small rows reach every path
constexpr int kAddedByThread = 16;
#else
constexpr int kMostThreads = 512;  // leaves a thread 128 registers
constexpr int kAddedByThread = 1024;
#endif

template <class T>
class CudaRow {
 public:
  using Compute = compute_t<T>;
  using Sum = double;
  static constexpr int kPack = 16 / sizeof(T);

  // `workspace` holds a row's values where it is not null, else the block's dynamic shared memory does.
  PR_FN CudaRow(int64_t row, int64_t cols, Compute* workspace) : index_(row), cols_(cols) {
    const int64_t part = part_length(cols, cluster_blocks());
    begin_ = cluster_rank() * part;
    end_ = begin_ + part < cols ? begin_ + part : cols;
    kept_ = workspace != nullptr ? workspace + row * cols : dynamic_shared<Compute>() - begin_;
  }

  // Elements that each of `blocks` blocks holds, in whole packs.
  static PR_HOST_FN int64_t part_length(int64_t cols, int blocks) {
    return ((cols + blocks - 1) / blocks + kPack - 1) / kPack * kPack;
  }

  PR_FN int64_t index() const { return index_; }
  PR_FN int64_t size() const { return cols_; }
  PR_FN bool leader() const { return team_member() == 0; }

  PR_FN In<T> in(const void* base) const { return {static_cast<const T*>(base) + index_ * cols_}; }
  PR_FN Out<T> out(void* base) const { return {static_cast<T*>(base) + index_ * cols_}; }
  PR_FN InOut<T> inout(void* base) const { return {static_cast<T*>(base) + index_ * cols_}; }
  PR_FN InOut<Compute> wide_inout(void* base) const { return {static_cast<Compute*>(base) + index_ * cols_}; }

  PR_FN In<T> in_plane(const void* base, int64_t c, int64_t channels) const {
    return {static_cast<const T*>(base) + (index_ * channels + c) * cols_};
  }
  PR_FN Out<T> out_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<T*>(base) + (index_ * channels + c) * cols_};
  }
  PR_FN InOut<T> inout_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<T*>(base) + (index_ * channels + c) * cols_};
  }
  PR_FN InOut<Compute> wide_inout_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<Compute*>(base) + (index_ * channels + c) * cols_};
  }

  // Every thread of the team has come here, and memory that one of them wrote before may be read by all.
  PR_FN void sync() const { team_sync(); }

  PR_FN Compute scalar(const RowScalar& s) const {
    return s.values ? static_cast<const Compute*>(s.values)[index_] : static_cast<Compute>(s.value);
  }

  PR_FN void load(In<T> array) {
    load([](Compute v) { return v; }, array);
  }

  template <class F, class... A>
  PR_FN void load(F f, A... arrays) {
    map([f](Compute& kept, auto&... elements) { kept = f(elements...); }, Out<Compute>{kept_}, arrays...);
  }

  template <class F, class... A>
  PR_FN void update(F f, A... arrays) {
    map([f](Compute& kept, auto&... elements) { kept = f(kept, elements...); }, InOut<Compute>{kept_}, arrays...);
  }

  template <class F, class... A>
  PR_FN Sum sum(F f, A... arrays) const {
    Sum total = 0;
#pragma unroll 1
    for (int64_t from = begin_; from < end_; from += stretch()) {
      Compute part = 0;
      visit_stretch(
          from, [&](Compute kept, auto&... elements) { part += f(kept, elements...); }, In<Compute>{kept_}, arrays...);
      total += part;
    }
    return team_sum(total);
  }

  template <class F, class... A>
  PR_FN Two<Sum> sum2(F f, A... arrays) const {
    Two<Sum> total = {0, 0};
#pragma unroll 1
    for (int64_t from = begin_; from < end_; from += stretch()) {
      Two<Compute> part = {0, 0};
      visit_stretch(
          from,
          [&](Compute kept, auto&... elements) {
            const Two<Compute> x = f(kept, elements...);
            part.first += x.first, part.second += x.second;
          },
          In<Compute>{kept_}, arrays...);
      total.first += part.first, total.second += part.second;
    }
    return team_sum2(total);
  }

  template <class F, class... A>
  PR_FN Compute max(F f, A... arrays) const {
    auto most = magnitude_bits(Compute(0));
    each(
        [&](Compute kept, auto&... elements) {
          const auto bits = magnitude_bits(f(kept, elements...));
          most = bits > most ? bits : most;
        },
        arrays...);
    return from_magnitude(team_max(most));
  }

  template <class F, class... A>
  PR_FN Most<Compute> most(F f, A... arrays) const {
    Most<Compute> best = {-__builtin_inff(), 0};
    each(
        [&](Compute kept, auto&... elements) {
          const Compute value = f(kept, elements...);
          if (value > best.value) best = {value, place(elements...)};
        },
        arrays...);
    return team_most(best);
  }

  template <class F, class... A>
  PR_FN void each(F f, A... arrays) const {
    map(f, In<Compute>{kept_}, arrays...);
  }

  template <class F, class... A>
  PR_FN void map(F f, A... arrays) const {
    visit_packs(begin_, end_, f, arrays...);
  }

 private:
  // The position() among the elements of most().
  template <class... E>
  static PR_FN int64_t place(int64_t position, E&...) {
    return position;
  }

  // How many elements the block visits while a thread adds kAddedByThread: whole packs of every thread.
  static PR_FN int64_t stretch() { return int64_t(blockDim.x) * kAddedByThread; }

  template <class F, class... A>
  PR_FN void visit_stretch(int64_t from, F f, A... arrays) const {
    visit_packs(from, end_ - from < stretch() ? end_ : from + stretch(), f, arrays...);
  }

  template <class F, class... A>
  PR_FN void visit_packs(int64_t from, int64_t to, F f, A... arrays) const {
#pragma unroll 1
    for (int64_t base = from + int64_t(threadIdx.x) * kPack; base < to; base += int64_t(blockDim.x) * kPack)
      visit_pack(f, base, arrays...);
  }

  // f(elements…) for the positions of one pack inside the row: by vectors where all arrays allow it, else one by one.
  template <class F, class... A>
  PR_FN void visit_pack(F f, int64_t base, A... arrays) const {
    if (end_ - base >= kPack && (... && aligned(arrays, base))) return visit<kPack>(f, base, arrays...);
    const int64_t end = end_ - base < kPack ? end_ : base + kPack;
#pragma unroll 1
    for (int64_t i = base; i < end; ++i) visit<1>(f, i, arrays...);
  }

  // f on N positions from `base` on.
  template <int N, class F, class... A>
  static PR_FN void visit(F f, int64_t base, A... arrays) {
    auto run = [&](auto... packs) {
#pragma unroll
      for (int j = 0; j < N; ++j) f(packs.item[j]...);
      (commit(arrays, base, packs), ...);
    };
    run(fetch<N>(arrays, base)...);
  }

  template <class Array>
  static PR_FN bool aligned(Array array, int64_t base) {
    return reinterpret_cast<uintptr_t>(array.data + base) % 16 == 0;
  }
  static PR_FN bool aligned(Position, int64_t) { return true; }

  // 16-byte accesses where N is a pack; __restrict__ is not claimed, because in-place calls alias.
  template <int N, class U>
  static PR_FN Pack<compute_t<U>, N> read(const U* data) {
    Pack<U, N> stored;
    if constexpr (N == 1) {
      stored.item[0] = *data;
    } else {
#pragma unroll
      for (int v = 0; v < int(N * sizeof(U) / 16); ++v) {
        const uint4 quad = reinterpret_cast<const uint4*>(data)[v];
        __builtin_memcpy(reinterpret_cast<char*>(stored.item) + 16 * v, &quad, 16);
      }
    }
    Pack<compute_t<U>, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) pack.item[j] = to_compute(stored.item[j]);
    return pack;
  }

  template <class U, int N>
  static PR_FN void write(U* data, const Pack<compute_t<U>, N>& pack) {
    Pack<U, N> stored;
#pragma unroll
    for (int j = 0; j < N; ++j) stored.item[j] = FromCompute<U>::of(pack.item[j]);
    if constexpr (N == 1) {
      *data = stored.item[0];
    } else {
#pragma unroll
      for (int v = 0; v < int(N * sizeof(U) / 16); ++v) {
        uint4 quad;
        __builtin_memcpy(&quad, reinterpret_cast<const char*>(stored.item) + 16 * v, 16);
        store_16_bytes(reinterpret_cast<uint4*>(data) + v, quad);
      }
    }
  }

  template <int N, class U>
  static PR_FN Pack<compute_t<U>, N> fetch(In<U> array, int64_t base) {
    return read<N>(array.data + base);
  }
  template <int N, class U>
  static PR_FN Pack<compute_t<U>, N> fetch(InOut<U> array, int64_t base) {
    return read<N>(static_cast<const U*>(array.data) + base);
  }
  template <int N, class U>
  static PR_FN Pack<compute_t<U>, N> fetch(Out<U>, int64_t) {
    return {};
  }
  template <int N>
  static PR_FN Pack<int64_t, N> fetch(Position, int64_t base) {
    Pack<int64_t, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) pack.item[j] = base + j;
    return pack;
  }

  template <class U, int N>
  static PR_FN void commit(Out<U> array, int64_t base, const Pack<compute_t<U>, N>& pack) {
    write(array.data + base, pack);
  }
  template <class U, int N>
  static PR_FN void commit(InOut<U> array, int64_t base, const Pack<compute_t<U>, N>& pack) {
    write(array.data + base, pack);
  }
  template <class U, int N>
  static PR_FN void commit(In<U>, int64_t, const Pack<compute_t<U>, N>&) {}
  template <int N>
  static PR_FN void commit(Position, int64_t, const Pack<int64_t, N>&) {}

  int64_t index_, cols_, begin_, end_;
  Compute* kept_;
};

// About two packs a thread, in whole warps.
inline int threads_for(int64_t packs) {
  const int64_t threads = (packs / 2 + 31) / 32 * 32;
  return threads < 32 ? 32 : threads > kMostThreads ? kMostThreads : int(threads);
}

// How a team holds a row: its blocks, their threads, and the shared memory of each (0: the row is kept in the
// workspace).
struct TeamShape {
  int blocks, threads;
  int64_t shared;
};

template <class T>
TeamShape team_shape(int64_t cols, int device) {
  using Row = CudaRow<T>;
  const int64_t limit = max_shared_bytes(device);
  for (int blocks = 1; blocks <= max_cluster(device); blocks *= 2) {
    const int64_t part = Row::part_length(cols, blocks), bytes = part * int64_t(sizeof(compute_t<T>));
    const bool last = blocks * 2 > max_cluster(device);
    if (bytes > (last ? limit : limit / 2)) continue;  // half: two blocks a multiprocessor hide each other's barriers
    return {blocks, threads_for(part / Row::kPack), bytes};
  }
  return {max_cluster(device), kMostThreads, 0};
}

template <class T, class Op, class Args>
__global__ void __launch_bounds__(kMostThreads) row_kernel(Batch batch, Args arguments, compute_t<T>* workspace) {
  CudaRow<T> row(team_index(), batch.cols, workspace);
  Op::run(row, arguments);
}

template <class T, class Op, class Args>
Status run_rows(const Batch& batch, const Args& arguments) {
  const TeamShape shape = team_shape<T>(batch.cols, batch.device);
  auto* workspace = shape.shared == 0 ? static_cast<compute_t<T>*>(arguments.workspace) : nullptr;
  if (shape.shared == 0 && workspace == nullptr) return {Code::invalid_argument, "rows this long need a workspace"};
  return launch(row_kernel<T, Op, Args>, batch.rows, shape.threads, shape.blocks, shape.shared, batch, arguments,
                workspace);
}

template <class Op, class Args>
Status launch_rows(const Batch& batch, const Args& arguments) {
  if (batch.rows == 0 || batch.cols == 0) return {};
  const DeviceGuard guard(batch.device);
  if (guard.error() != cudaSuccess) return cuda_status(guard.error());
  switch (batch.dtype) {
    case DType::float32:
      return run_rows<float, Op>(batch, arguments);
    case DType::float64:
      return run_rows<double, Op>(batch, arguments);
    case DType::float16:
      return run_rows<float16, Op>(batch, arguments);
    case DType::bfloat16:
      return run_rows<bfloat16, Op>(batch, arguments);
  }
  return {Code::invalid_argument, "unknown dtype"};
}

PR_NAMESPACE_END
