// One row on a GPU: the passes of cpu_row.h, run by the team of threads that holds the row on chip.
//
// A team is one block, or on Hopper and later a cluster of up to 8 blocks when the row outgrows one. Each thread keeps ITEMS
// elements in registers, in packs of 16 bytes interleaved over the team so that every access is coalesced. ITEMS = 0 is the
// fallback for rows that no team can hold: kept values live in the array they came from, or in a workspace.
// Every reduction has a fixed order (registers, warp, block, cluster): results do not depend on timing or on other rows.
#pragma once

#include "arrays.h"
#include "cuda_runtime.cuh"

PR_NAMESPACE_BEGIN

template <class C, int N>
struct Pack {
  C item[N];
};

template <class T, int ITEMS>
class CudaRow {
 public:
  using Storage = T;
  using Compute = compute_t<T>;
  using Sum = double;
  static constexpr bool on_gpu = true;
  static constexpr int kPack = 16 / sizeof(T);
  static constexpr int kPacks = ITEMS / kPack;

  PR_FN CudaRow(int64_t row, int64_t cols, Compute* workspace)
      : index_(row),
        cols_(cols),
        member_(team_member()),
        team_(team_size()),
        workspace_(workspace ? workspace + row * cols : nullptr) {}

  PR_FN int64_t index() const { return index_; }
  PR_FN int64_t size() const { return cols_; }
  PR_FN bool leader() const { return member_ == 0; }

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
    if constexpr (ITEMS == 0 && sizeof(T) == sizeof(Compute)) {
      bound_ = reinterpret_cast<const Compute*>(array.data);
    } else {
      load([](Compute v) { return v; }, array);
    }
  }

  template <class F, class... A>
  PR_FN void load(F f, A... arrays) {
    if constexpr (ITEMS == 0) {
      map([f](Compute& kept, auto&... elements) { kept = f(elements...); }, Out<Compute>{workspace_}, arrays...);
      bound_ = workspace_;  // each thread reads back only what it wrote
    } else {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int64_t base = pack_base(p);
        visit_pack([&](int j, auto&... elements) { kept_[p * kPack + j] = f(elements...); }, base, arrays...);
      }
    }
  }

  template <class F, class... A>
  PR_FN void update(F f, A... arrays) {
    if constexpr (ITEMS == 0) {
      map([f](Compute kept, Compute& now, auto&... elements) { now = f(kept, elements...); }, In<Compute>{bound_},
          Out<Compute>{workspace_}, arrays...);
      bound_ = workspace_;
    } else {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        visit_pack([&](int j, auto&... elements) { kept_[p * kPack + j] = f(kept_[p * kPack + j], elements...); },
                   pack_base(p), arrays...);
      }
    }
  }

  template <class F, class... A>
  PR_FN Sum sum(F f, A... arrays) const {
    Compute total = 0;
    over([&](Compute kept, auto&... elements) { total += f(kept, elements...); }, arrays...);
    return team_sum(total);
  }

  template <class F, class... A>
  PR_FN Two<Sum> sum2(F f, A... arrays) const {
    Compute first = 0, second = 0;
    over(
        [&](Compute kept, auto&... elements) {
          const Two<Compute> x = f(kept, elements...);
          first += x.first, second += x.second;
        },
        arrays...);
    return {team_sum(first), team_sum(second)};
  }

  template <class F, class... A>
  PR_FN Compute max(F f, A... arrays) const {
    auto most = magnitude_bits(Compute(0));
    over(
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
    over(
        [&](Compute kept, auto&... elements) {
          const Compute value = f(kept, elements...);
          if (value > best.value) best = {value, place(elements...)};
        },
        arrays...);
    return team_most(best);
  }

  template <class F, class... A>
  PR_FN void each(F f, A... arrays) const {
    over(f, arrays...);
  }

  template <class F, class... A>
  PR_FN void map(F f, A... arrays) const {
    for (int64_t base = int64_t(member_) * kPack; base < cols_; base += int64_t(team_) * kPack)
      visit_pack([&](int, auto&... elements) { f(elements...); }, base, arrays...);
  }

 private:
  // The position() among the elements of most().
  template <class... E>
  static PR_FN int64_t place(int64_t position, E&...) {
    return position;
  }

  PR_FN int64_t pack_base(int p) const { return (int64_t(p) * team_ + member_) * kPack; }

  // f(kept, elements…) at each of this thread's positions.
  template <class F, class... A>
  PR_FN void over(F f, A... arrays) const {
    if constexpr (ITEMS == 0) {
      map([&](auto& kept, auto&... elements) { f(kept, elements...); }, In<Compute>{bound_}, arrays...);
    } else {
#pragma unroll
      for (int p = 0; p < kPacks; ++p)
        visit_pack([&](int j, auto&... elements) { f(kept_[p * kPack + j], elements...); }, pack_base(p), arrays...);
    }
  }

  // f(j, elements…) for the positions base + j inside the row.
  template <class F, class... A>
  PR_FN void visit_pack(F f, int64_t base, A... arrays) const {
    if (base >= cols_) return;
    const int count = cols_ - base < kPack ? int(cols_ - base) : kPack;
    auto run = [&](auto... packs) {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        if (j < count) f(j, packs.item[j]...);
      (commit(arrays, base, count, packs), ...);
    };
    run(fetch(arrays, base, count)...);
  }

  template <class U>
  static PR_FN bool whole(const U* data, int count) {
    return count == kPack && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  }

  template <class U>
  static PR_FN Pack<compute_t<U>, kPack> read(const U* data, int count) {
    Pack<U, kPack> stored;
    if (whole(data, count)) {
      load_vector(stored.item, data);
    } else {
#pragma unroll
      for (int j = 0; j < kPack; ++j) stored.item[j] = data[j < count ? j : 0];
    }
    Pack<compute_t<U>, kPack> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j) pack.item[j] = to_compute(stored.item[j]);
    return pack;
  }

  template <class U>
  static PR_FN void write(U* data, int count, const Pack<compute_t<U>, kPack>& pack) {
    Pack<U, kPack> stored;
#pragma unroll
    for (int j = 0; j < kPack; ++j) stored.item[j] = FromCompute<U>::of(pack.item[j]);
    if (whole(data, count)) {
      store_vector(data, stored.item);
    } else {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        if (j < count) data[j] = stored.item[j];
    }
  }

  // The 16-byte accesses of a pack; __restrict__ is not claimed, because in-place calls alias.
  template <class U>
  static PR_FN void load_vector(U* to, const U* from) {
#pragma unroll
    for (int v = 0; v < int(kPack * sizeof(U) / 16); ++v) {
      const uint4 quad = reinterpret_cast<const uint4*>(from)[v];
      __builtin_memcpy(reinterpret_cast<char*>(to) + 16 * v, &quad, 16);
    }
  }
  template <class U>
  static PR_FN void store_vector(U* to, const U* from) {
#pragma unroll
    for (int v = 0; v < int(kPack * sizeof(U) / 16); ++v) {
      uint4 quad;
      __builtin_memcpy(&quad, reinterpret_cast<const char*>(from) + 16 * v, 16);
      reinterpret_cast<uint4*>(to)[v] = quad;
    }
  }

  template <class U>
  static PR_FN Pack<compute_t<U>, kPack> fetch(In<U> array, int64_t base, int count) {
    return read(array.data + base, count);
  }
  template <class U>
  static PR_FN Pack<compute_t<U>, kPack> fetch(InOut<U> array, int64_t base, int count) {
    return read(static_cast<const U*>(array.data) + base, count);
  }
  template <class U>
  static PR_FN Pack<compute_t<U>, kPack> fetch(Out<U>, int64_t, int) {
    return {};
  }
  static PR_FN Pack<int64_t, kPack> fetch(Position, int64_t base, int) {
    Pack<int64_t, kPack> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j) pack.item[j] = base + j;
    return pack;
  }

  template <class U, class P>
  static PR_FN void commit(Out<U> array, int64_t base, int count, const P& pack) {
    write(array.data + base, count, pack);
  }
  template <class U, class P>
  static PR_FN void commit(InOut<U> array, int64_t base, int count, const P& pack) {
    write(array.data + base, count, pack);
  }
  template <class Any, class P>
  static PR_FN void commit(Any, int64_t, int, const P&) {}

  int64_t index_, cols_;
  int member_, team_;
  Compute kept_[ITEMS > 0 ? ITEMS : 1];
  Compute* workspace_;
  const Compute* bound_ = nullptr;
};

#if defined(PR_EMULATE_CUDA)
constexpr int kMaxThreads = 64;  // so that small rows reach every path
#else
constexpr int kMaxThreads = 1024;
#endif
constexpr int kFewItems = 8;
// 24 values of 4 bytes leave a thread of a full block (64 registers) room to work; 8-byte values do not fit.
template <class T>
constexpr int kManyItems = sizeof(T) == 8 ? kFewItems : 24;

template <class T, class Op, class Args, int ITEMS>
__global__ void __launch_bounds__(kMaxThreads) row_kernel(Batch batch, Args arguments, compute_t<T>* workspace) {
  CudaRow<T, ITEMS> row(team_index(), batch.cols, workspace);
  Op::run(row, arguments);
}

template <class T, class Op, class Args>
cudaError_t run_rows(const Batch& batch, const Args& arguments, void* workspace) {
  auto* space = static_cast<compute_t<T>*>(workspace);
  constexpr int many = kManyItems<T>;
  const auto threads_for = [&](int items) { return int((batch.cols + items - 1) / items + 31) / 32 * 32; };
  if (batch.cols <= int64_t(kFewItems) * kMaxThreads)
    return launch(row_kernel<T, Op, Args, kFewItems>, batch.rows, threads_for(kFewItems), 1, batch, arguments, space);
  for (int cluster = 1; cluster <= max_cluster(batch.device); cluster *= 2) {
    if (batch.cols > int64_t(many) * kMaxThreads * cluster) continue;
    const int threads = threads_for(many * cluster);
    return launch(row_kernel<T, Op, Args, many>, batch.rows, threads, cluster, batch, arguments, space);
  }
  return launch(row_kernel<T, Op, Args, 0>, batch.rows, kMaxThreads, 1, batch, arguments, space);
}

template <class Op, class Args>
Status launch_rows(const Batch& batch, const Args& arguments) {
  if (batch.rows == 0 || batch.cols == 0) return {};
  const DeviceGuard guard(batch.device);
  if (guard.error() != cudaSuccess) return cuda_status(guard.error());
  switch (batch.dtype) {
    case DType::float32:
      return cuda_status(run_rows<float, Op>(batch, arguments, arguments.workspace));
    case DType::float64:
      return cuda_status(run_rows<double, Op>(batch, arguments, arguments.workspace));
    case DType::float16:
      return cuda_status(run_rows<float16, Op>(batch, arguments, arguments.workspace));
    case DType::bfloat16:
      return cuda_status(run_rows<bfloat16, Op>(batch, arguments, arguments.workspace));
  }
  return {Code::invalid_argument, "unknown dtype"};
}

PR_NAMESPACE_END
