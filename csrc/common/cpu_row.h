// One row on the CPU: the passes that an op is written in (see cuda_row.cuh for the same passes on a GPU).
//
//   load(f, arrays…)   keep f(elements…) of each position on chip (here: in this thread's scratch)
//   load(array)        keep the array's elements; no copy where they need no conversion
//   update(f, arrays…) replace the kept value by f(kept, elements…)
//   sum, sum2, max     reduce f(kept, elements…) over the row
//   most(f, arrays…)   the largest f and where it stands first
//   each(f, arrays…)   visit f(kept, elements…), writing the arrays named by out() and inout()
//   map(f, arrays…)    the same without a kept value
#pragma once

#include "arrays.h"
#include "parallel.h"

PR_NAMESPACE_BEGIN

template <class T>
class CpuRow {
 public:
  using Compute = compute_t<T>;
  using Sum = double;

  CpuRow(int64_t row, int64_t cols, Compute* scratch) : index_(row), cols_(cols), scratch_(scratch) {}

  int64_t index() const { return index_; }
  int64_t size() const { return cols_; }
  bool leader() const { return true; }

  In<T> in(const void* base) const { return {static_cast<const T*>(base) + index_ * cols_}; }
  Out<T> out(void* base) const { return {static_cast<T*>(base) + index_ * cols_}; }
  InOut<T> inout(void* base) const { return {static_cast<T*>(base) + index_ * cols_}; }
  InOut<Compute> wide_inout(void* base) const { return {static_cast<Compute*>(base) + index_ * cols_}; }

  // Plane `c` of a row of `channels` planes of size() elements each.
  In<T> in_plane(const void* base, int64_t c, int64_t channels) const {
    return {static_cast<const T*>(base) + (index_ * channels + c) * cols_};
  }
  Out<T> out_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<T*>(base) + (index_ * channels + c) * cols_};
  }
  InOut<T> inout_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<T*>(base) + (index_ * channels + c) * cols_};
  }
  InOut<Compute> wide_inout_plane(void* base, int64_t c, int64_t channels) const {
    return {static_cast<Compute*>(base) + (index_ * channels + c) * cols_};
  }

  void sync() const {}  // all threads of the row have come here

  Compute scalar(const RowScalar& s) const {
    return s.values ? static_cast<const Compute*>(s.values)[index_] : static_cast<Compute>(s.value);
  }

  void load(In<T> array) {
    if constexpr (sizeof(T) == sizeof(Compute)) {
      kept_ = array.data;
    } else {
      load([](Compute v) PR_LAMBDA { return v; }, array);
    }
  }

  // A row of the given values, which stay where they are.
  static PR_FN CpuRow over(const Compute* values, int64_t count) {
    CpuRow row(0, count, nullptr);
    row.kept_ = values;
    return row;
  }
  const Compute* kept() const { return kept_; }
  Compute* scratch() const { return scratch_; }

  template <class F, class... A>
  PR_FN void load(F f, A... arrays) {
    Compute* const kept = scratch_;
#pragma omp simd
    for (int64_t i = 0; i < cols_; ++i) kept[i] = visit(f, i, arrays...);
    kept_ = scratch_;
  }

  // kept = f(kept, elements…), after a load(f, …).
  template <class F, class... A>
  PR_FN void update(F f, A... arrays) {
    Compute* const kept = scratch_;
#pragma omp simd
    for (int64_t i = 0; i < cols_; ++i) kept[i] = at(kept, f, i, arrays...);
    kept_ = scratch_;
  }

  template <class F, class... A>
  PR_FN Sum sum(F f, A... arrays) const {
    const Compute* const row = kept_;
    Sum total = 0;
    int64_t begin = 0;
    for (; begin + kChunk <= cols_; begin += kChunk) total += sum_of_four(row, begin, kChunk / 4, f, arrays...);
    const int64_t part = (cols_ - begin) / 4 / kBlock * kBlock;
    if (part > 0) total += sum_of_four(row, begin, part, f, arrays...);
    Compute rest = 0;
#pragma omp simd reduction(+ : rest)
    for (int64_t i = begin + 4 * part; i < cols_; ++i) rest += at(row, f, i, arrays...);
    return total + rest;
  }

  template <class F, class... A>
  PR_FN Two<Sum> sum2(F f, A... arrays) const {
    const Compute* const row = kept_;
    Two<Sum> total = {0, 0};
    const auto add = [&](Two<Sum> more) PR_LAMBDA { total.first += more.first, total.second += more.second; };
    int64_t begin = 0;
    for (; begin + kChunk <= cols_; begin += kChunk) add(sum2_of_two(row, begin, kChunk / 2, f, arrays...));
    const int64_t part = (cols_ - begin) / 2 / kBlock * kBlock;
    if (part > 0) add(sum2_of_two(row, begin, part, f, arrays...));
    Compute a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
    for (int64_t i = begin + 2 * part; i < cols_; ++i) {
      const Two<Compute> x = at(row, f, i, arrays...);
      a += x.first, b += x.second;
    }
    add({a, b});
    return total;
  }

  // The largest |f|; NaN if any is NaN.
  template <class F, class... A>
  PR_FN Compute max(F f, A... arrays) const {
    const Compute* const row = kept_;
    auto most = magnitude_bits(Compute(0));
    for (int64_t i = 0; i < cols_; ++i) {
      const auto bits = magnitude_bits(at(row, f, i, arrays...));
      most = bits > most ? bits : most;
    }
    return from_magnitude(most);
  }

  // The largest f and the first place where it stands; NaN is passed over. Plain comparisons: for short rows.
  template <class F, class... A>
  PR_FN Most<Compute> most(F f, A... arrays) const {
    const Compute* const row = kept_;
    Most<Compute> best = {-__builtin_inff(), 0};
    for (int64_t i = 0; i < cols_; ++i) {
      const Compute value = at(row, f, i, arrays...);
      if (value > best.value) best = {value, i};
    }
    return best;
  }

  template <class F, class... A>
  PR_FN void each(F f, A... arrays) const {
    const Compute* const row = kept_;
#pragma omp simd
    for (int64_t i = 0; i < cols_; ++i) at(row, f, i, arrays...);
  }

  template <class F, class... A>
  PR_FN void map(F f, A... arrays) const {
#pragma omp simd
    for (int64_t i = 0; i < cols_; ++i) visit(f, i, arrays...);
  }

 private:
  // Sums of float32 are carried on in float64 after this many elements.
  static constexpr int64_t kChunk = 1024;
  static constexpr int64_t kBlock = 16;  // a multiple of every vector's lanes

  // Over 4 · part elements, in four chains side by side: they hide the latency of an addition.
  template <class F, class... A>
  static PR_FN Sum sum_of_four(const Compute* row, int64_t begin, int64_t part, F f, A... arrays) {
    Compute a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int64_t i = begin; i < begin + part; ++i) {
      a += at(row, f, i, arrays...);
      b += at(row, f, i + part, arrays...);
      c += at(row, f, i + 2 * part, arrays...);
      d += at(row, f, i + 3 * part, arrays...);
    }
    return (Sum(a) + b) + (Sum(c) + d);
  }

  template <class F, class... A>
  static PR_FN Two<Sum> sum2_of_two(const Compute* row, int64_t begin, int64_t part, F f, A... arrays) {
    Compute a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int64_t i = begin; i < begin + part; ++i) {
      const Two<Compute> x = at(row, f, i, arrays...), y = at(row, f, i + part, arrays...);
      a += x.first, b += x.second, c += y.first, d += y.second;
    }
    return {Sum(a) + c, Sum(b) + d};
  }

  template <class U>
  static PR_FN auto fetch(In<U> array, int64_t i) {
    return to_compute(array.data[i]);
  }
  template <class U>
  static PR_FN auto fetch(InOut<U> array, int64_t i) {
    return to_compute(array.data[i]);
  }
  template <class U>
  static PR_FN compute_t<U> fetch(Out<U>, int64_t) {
    return 0;
  }
  static PR_FN int64_t fetch(Position, int64_t i) { return i; }

  template <class U, class V>
  static PR_FN void commit(Out<U> array, int64_t i, V value) {
    array.data[i] = FromCompute<U>::of(value);
  }
  template <class U, class V>
  static PR_FN void commit(InOut<U> array, int64_t i, V value) {
    array.data[i] = FromCompute<U>::of(value);
  }
  template <class Any, class V>
  static PR_FN void commit(Any, int64_t, V) {}

  // f(kept, elements…) at position i. The pointer is passed in: read from the row within a loop, it would keep the loop
  // from being vectorised.
  template <class F, class... A>
  static PR_FN auto at(const Compute* row, F f, int64_t i, A... arrays) {
    const Compute kept = row[i];
    return visit([f, kept](auto&... elements) PR_LAMBDA { return f(kept, elements...); }, i, arrays...);
  }

  // Fetch the elements at i, run f on them, write back those that f may have changed.
  template <class F, class... A>
  static PR_FN auto visit(F f, int64_t i, A... arrays) {
    auto run = [&](auto... elements) PR_LAMBDA {
      if constexpr (__is_same(decltype(f(elements...)), void)) {
        f(elements...);
        (commit(arrays, i, elements), ...);
      } else {
        const auto result = f(elements...);
        (commit(arrays, i, elements), ...);
        return result;
      }
    };
    return run(fetch(arrays, i)...);
  }

  int64_t index_, cols_;
  Compute* scratch_;
  const Compute* kept_ = nullptr;
};

// Rows are dealt to the threads in contiguous shares. `Op` is a function object with op(row, arguments).
template <class T, class Op, class Args>
void run_rows(const Batch& batch, const Args& arguments) {
  struct Context {
    const Batch* batch;
    const Args* arguments;
  } context{&batch, &arguments};
  constexpr int64_t kGrainElements = 1 << 14;  // below this a second thread costs more than it saves
  const int64_t grain = batch.cols > 0 ? (kGrainElements + batch.cols - 1) / batch.cols : batch.rows;
  parallel_for(
      batch.rows, grain,
      [](void* opaque, int64_t begin, int64_t end) {
        const Context& c = *static_cast<const Context*>(opaque);
        auto* scratch =
            static_cast<compute_t<T>*>(thread_scratch((c.batch->cols + 32) * int64_t(sizeof(compute_t<T>))));
        for (int64_t r = begin; r < end; ++r) {
          CpuRow<T> row(r, c.batch->cols, scratch);
          Op::run(row, *c.arguments);
        }
      },
      &context);
}

template <class Op, class Args>
Status launch_rows(const Batch& batch, const Args& arguments) {
  switch (batch.dtype) {
    case DType::float32:
      run_rows<float, Op>(batch, arguments);
      break;
    case DType::float64:
      run_rows<double, Op>(batch, arguments);
      break;
    case DType::float16:
      run_rows<float16, Op>(batch, arguments);
      break;
    case DType::bfloat16:
      run_rows<bfloat16, Op>(batch, arguments);
      break;
    default:
      return {Code::invalid_argument, "unknown dtype"};
  }
  return {};
}

PR_NAMESPACE_END
