// Power-iteration step on a list of weight matrices: v = Wᵀu / ‖Wᵀu‖, u = Wv / ‖Wv‖, σ = uᵀWv = ‖Wv‖ (Yoshida & Miyato
// 2017).
//
// Both products read W as it lies in memory, row by row. The tiles that the work is cut into follow from a layer's
// shape alone, and their parts are added in a fixed order, in float64: the bits depend on no other layer and on no
// number of threads. The CPU deals the tiles of all layers to its threads; a GPU gives each layer a team, whose warps
// take turns.
#pragma once

#include "../common/row_math.h"
#include "spectral.h"

PR_NAMESPACE_BEGIN

#if defined(__CUDACC__) || defined(PR_EMULATE_CUDA)

struct SpectralTask {
  const void* weight;
  void* u;
  void* v;
  void* space;
  int64_t rows, cols;
};

// Passed by value: kernel arguments end at 4 KiB, and need no copy that a CUDA graph would have to keep alive.
struct SpectralTasks {
  static constexpr int kMost = 80;
  SpectralTask layer[kMost];
};

// Lane by lane a pack of 16 bytes: the coalesced reading of a row segment of W, or of any other array.
template <class U, int N>
PR_FN void read_pack(compute_t<U> (&pack)[N], const U* data, int64_t count) {
  static_assert(N * sizeof(U) % 16 == 0);
  U stored[N];
  if (count >= N && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
#pragma unroll
    for (int q = 0; q < int(N * sizeof(U) / 16); ++q) {
      const uint4 quad = reinterpret_cast<const uint4*>(data)[q];
      __builtin_memcpy(reinterpret_cast<char*>(stored) + 16 * q, &quad, 16);
    }
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) stored[j] = data[j < count ? j : 0];
  }
#pragma unroll
  for (int j = 0; j < N; ++j) pack[j] = j < count ? to_compute(stored[j]) : compute_t<U>(0);
}

template <class T>
class SpectralTeam {
 public:
  using C = compute_t<T>;

  PR_FN explicit SpectralTeam(const SpectralTask& layer)
      : weight_(static_cast<const T*>(layer.weight)),
        u_(static_cast<C*>(layer.u)),
        v_out_(static_cast<C*>(layer.v)),
        rows_(layer.rows),
        cols_(layer.cols),
        row_parts_(spectral_row_parts(layer.rows)),
        col_parts_(spectral_col_parts(layer.cols)),
        v_(static_cast<C*>(layer.space)),
        parts_(v_ + (cols_ + 3) / 4 * 4),
        dots_(parts_ + (row_parts_ * cols_ + 3) / 4 * 4) {}

  // σ; u and v are written.
  PR_FN double run(int64_t steps, double eps) {
    double sigma = 0;
    for (int64_t step = 0; step < steps; ++step) {
      multiply_transposed();
      team_sync();
      const double length = add_parts(v_, parts_, row_parts_, cols_);
      const bool defined = finite(length);
      for (int64_t j = team_member(); j < cols_; j += team_size())
        v_out_[j] = v_[j] = !defined ? not_a_number<C>() : length > eps ? C(double(v_[j]) / length) : C(0);
      if (!defined) fill(u_, rows_, not_a_number<C>());
      if (!defined || !(length > eps)) return defined ? 0 : length - length;
      team_sync();
      multiply();
      team_sync();
      // Nobody reads u before the next barrier.
      sigma = add_parts(dots_, dots_, col_parts_, rows_);
      for (int64_t i = team_member(); i < rows_ && sigma > 0; i += team_size()) u_[i] = C(double(dots_[i]) / sigma);
      team_sync();
    }
    return sigma;
  }

 private:
  static constexpr int kPack = 16 / sizeof(T);

  static PR_FN int warp() { return team_member() / 32; }
  static PR_FN int warps() { return team_size() / 32; }
  static PR_FN int lane() { return int(threadIdx.x) % 32; }

  static PR_FN void fill(C* values, int64_t count, C value) {
    for (int64_t i = team_member(); i < count; i += team_size()) values[i] = value;
  }

  // parts_[k] = Σᵢ uᵢ W[i, :] over the k-th kSpectralRows rows.
  PR_FN void multiply_transposed() const {
    const int64_t chunks = (cols_ + 32 * kPack - 1) / (32 * kPack);
    for (int64_t task = warp(); task < chunks * row_parts_; task += warps()) {
      const int64_t part = task / chunks, column = ((task % chunks) * 32 + lane()) * kPack, count = cols_ - column;
      if (count <= 0) continue;
      const int64_t begin = part * kSpectralRows, end = begin + kSpectralRows < rows_ ? begin + kSpectralRows : rows_;
      C sum[kPack] = {};
#pragma unroll 8
      for (int64_t i = begin; i < end; ++i) {
        C w[kPack];
        read_pack(w, weight_ + i * cols_ + column, count);
        const C factor = u_[i];
#pragma unroll
        for (int j = 0; j < kPack; ++j) sum[j] += factor * w[j];
      }
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        if (j < count) parts_[part * cols_ + column + j] = sum[j];
    }
  }

  // dots_[k, i] = W[i, :] v over the k-th kSpectralCols columns.
  PR_FN void multiply() const {
    for (int64_t task = warp(); task < rows_ * col_parts_; task += warps()) {
      const int64_t part = task / rows_, i = task % rows_;
      const int64_t end = (part + 1) * kSpectralCols < cols_ ? (part + 1) * kSpectralCols : cols_;
      C sum[kPack] = {};
#pragma unroll 4
      for (int64_t column = part * kSpectralCols + lane() * kPack; column < end; column += 32 * kPack) {
        C w[kPack], factor[kPack];
        read_pack(w, weight_ + i * cols_ + column, end - column);
        read_pack(factor, v_ + column, end - column);
#pragma unroll
        for (int j = 0; j < kPack; ++j) sum[j] += factor[j] * w[j];
      }
      double total = 0;
#pragma unroll
      for (int j = 0; j < kPack; ++j) total += sum[j];
      for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(kWholeWarp, total, offset);
      if (lane() == 0) dots_[part * rows_ + i] = C(total);
    }
  }

  // sums = Σ of the parts, each thread its own places; returns ‖sums‖₂. `sums` may be the first part.
  static PR_FN double add_parts(C* sums, const C* parts, int64_t count, int64_t size) {
    double squares = 0;
    for (int64_t i = team_member(); i < size; i += team_size()) {
      double sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += parts[k * size + i];
      sums[i] = C(sum);
      squares += double(sums[i]) * double(sums[i]);
    }
    squares = team_sum(squares);
    if (squares > 1e-280 && squares <= 1e300) return square_root(squares);
    auto most = magnitude_bits(C(0));
    for (int64_t i = team_member(); i < size; i += team_size()) {
      const auto bits = magnitude_bits(sums[i]);
      most = bits > most ? bits : most;
    }
    const double largest = from_magnitude(team_max(most));
    if (!(largest > 0) || !finite(largest)) return largest;
    double ratios = 0;
    for (int64_t i = team_member(); i < size; i += team_size()) {
      const double ratio = double(sums[i]) / largest;
      ratios += ratio * ratio;
    }
    return largest * square_root(team_sum(ratios));
  }

  const T* weight_;
  C *u_, *v_out_;
  int64_t rows_, cols_, row_parts_, col_parts_;
  C *v_, *parts_, *dots_;
};

template <class T>
__global__ void __launch_bounds__(kMostThreads)
    spectral_kernel(Batch batch, SpectralTasks tasks, void* sigmas, int64_t steps, double eps) {
  using C = compute_t<T>;
  const int64_t layer = team_index();
  const double sigma = SpectralTeam<T>(tasks.layer[layer]).run(steps, eps);
  if (team_member() == 0) static_cast<C*>(sigmas)[layer] = C(sigma);
}

template <class T>
Status run_spectral(const Batch& batch, const SpectralArgs& a) {
  using C = compute_t<T>;
  const auto* const layers = static_cast<const SpectralLayer*>(a.layers);
  C* v = static_cast<C*>(a.vs);
  C* space = static_cast<C*>(a.workspace);
  // As large a team as there may be whatever the layers: one size for all, for a layer's bits not to depend on the
  // others.
  const int cluster = max_cluster(batch.device);
  for (int64_t first = 0; first < batch.rows; first += SpectralTasks::kMost) {
    const int64_t rest = batch.rows - first, count = rest < SpectralTasks::kMost ? rest : SpectralTasks::kMost;
    SpectralTasks tasks = {};
    for (int64_t l = 0; l < count; ++l) {
      const SpectralLayer& layer = layers[first + l];
      tasks.layer[l] = {layer.weight, layer.u, v, space, layer.rows, layer.cols};
      v += layer.cols;
      space += spectral_space(layer.rows, layer.cols);
    }
    void* const sigmas = static_cast<C*>(a.sigmas) + first;
    const Status status =
        launch(spectral_kernel<T>, count, kMostThreads, cluster, 0, batch, tasks, sigmas, a.steps, a.eps);
    if (status.code != Code::ok) return status;
  }
  return {};
}

inline Status launch_spectral(const Batch& batch, const SpectralArgs& a) {
  const DeviceGuard guard(batch.device);
  if (guard.error() != cudaSuccess) return cuda_status(guard.error());
  switch (batch.dtype) {
    case DType::float32:
      return run_spectral<float>(batch, a);
    case DType::float64:
      return run_spectral<double>(batch, a);
    case DType::float16:
      return run_spectral<float16>(batch, a);
    case DType::bfloat16:
      return run_spectral<bfloat16>(batch, a);
  }
  return {Code::invalid_argument, "unknown dtype"};
}

#else  // the CPU

// ‖values‖₂ without overflow or underflow of the squares; NaN and ±Inf propagate.
template <class C>
PR_SEARCH double length_of(const C* values, int64_t count) {
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < count; ++i) squares += double(values[i]) * double(values[i]);
  if (squares > 1e-280 && squares <= 1e300) return square_root(squares);
  auto most = magnitude_bits(C(0));
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = magnitude_bits(values[i]);
    most = bits > most ? bits : most;
  }
  const double largest = from_magnitude(most);
  if (!(largest > 0) || !finite(largest)) return largest;
  double ratios = 0;
  for (int64_t i = 0; i < count; ++i) ratios += (double(values[i]) / largest) * (double(values[i]) / largest);
  return largest * square_root(ratios);
}

// z = Wᵀu of a tile; at most kSpectralRows additions in a chain.
template <class T, class C>
PR_SEARCH void multiply_tile_transposed(C* z, const T* w, const C* u, int64_t rows, int64_t stride, int64_t cols) {
  for (int64_t j = 0; j < cols; ++j) z[j] = 0;
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) {
    const T* const a = w + i * stride;
    const T *const b = a + stride, *const c = b + stride, *const d = c + stride;
    const T *const e = d + stride, *const f = e + stride, *const g = f + stride, *const h = g + stride;
    const C ua = u[i], ub = u[i + 1], uc = u[i + 2], ud = u[i + 3];
    const C ue = u[i + 4], uf = u[i + 5], ug = u[i + 6], uh = u[i + 7];
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) {
      const C upper = (ua * to_compute(a[j]) + ub * to_compute(b[j])) + (uc * to_compute(c[j]) + ud * to_compute(d[j]));
      const C lower = (ue * to_compute(e[j]) + uf * to_compute(f[j])) + (ug * to_compute(g[j]) + uh * to_compute(h[j]));
      z[j] += upper + lower;
    }
  }
  for (; i < rows; ++i) {
    const T* const row = w + i * stride;
    const C factor = u[i];
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) z[j] += factor * to_compute(row[j]);
  }
}

// y = Wv of a tile: sums of 256 columns in the compute dtype, and of those in float64.
template <class T, class C>
PR_SEARCH void multiply_tile(C* y, const T* w, const C* v, int64_t rows, int64_t stride, int64_t cols) {
  constexpr int64_t kChunk = 256;
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const T* const a = w + i * stride;
    const T *const b = a + stride, *const c = b + stride, *const d = c + stride;
    double sum[4] = {};
    for (int64_t begin = 0; begin < cols; begin += kChunk) {
      const int64_t end = smaller(begin + kChunk, cols);
      C ya = 0, yb = 0, yc = 0, yd = 0;
#pragma omp simd reduction(+ : ya, yb, yc, yd)
      for (int64_t j = begin; j < end; ++j) {
        const C factor = v[j];
        ya += factor * to_compute(a[j]);
        yb += factor * to_compute(b[j]);
        yc += factor * to_compute(c[j]);
        yd += factor * to_compute(d[j]);
      }
      sum[0] += ya, sum[1] += yb, sum[2] += yc, sum[3] += yd;
    }
    for (int k = 0; k < 4; ++k) y[i + k] = C(sum[k]);
  }
  for (; i < rows; ++i) {
    const T* const row = w + i * stride;
    double sum = 0;
    for (int64_t begin = 0; begin < cols; begin += kChunk) {
      const int64_t end = smaller(begin + kChunk, cols);
      C part = 0;
#pragma omp simd reduction(+ : part)
      for (int64_t j = begin; j < end; ++j) part += v[j] * to_compute(row[j]);
      sum += part;
    }
    y[i] = C(sum);
  }
}

template <class T>
class SpectralRun {
 public:
  using C = compute_t<T>;

  SpectralRun(int64_t count, const SpectralArgs& arguments)
      : count_(count), args_(arguments), layers_(static_cast<const SpectralLayer*>(arguments.layers)) {}

  Status run() {
    constexpr int64_t size = sizeof(C);
    int64_t bytes = count_ * int64_t(sizeof(Plan));
    for (int64_t l = 0; l < count_; ++l) bytes += spectral_space(layers_[l].rows, layers_[l].cols) * size;
    plans_ = static_cast<Plan*>(thread_scratch(bytes));
    if (plans_ == nullptr) return {Code::cuda_error, "out of memory"};  // a RuntimeError
    C* v = static_cast<C*>(args_.vs);
    C* space = reinterpret_cast<C*>(plans_ + count_);
    for (int64_t l = 0; l < count_; ++l) {
      const int64_t rows = layers_[l].rows, cols = layers_[l].cols;
      plans_[l] = {work_, v, space, space + spectral_row_parts(rows) * cols, true};
      v += cols;
      space += spectral_space(rows, cols);
      work_ += rows * cols;
    }
    for (int64_t step = 0; step < args_.steps; ++step) {
      in_parallel<&SpectralRun::multiply_transposed>(work_, kGrain);
      in_parallel<&SpectralRun::finish_vs>(count_, layers_a_thread());
      in_parallel<&SpectralRun::multiply>(work_, kGrain);
      in_parallel<&SpectralRun::finish_us>(count_, layers_a_thread());
    }
    return {};
  }

 private:
  static constexpr int64_t kGrain = 1 << 14;  // elements, below which a second thread costs more than it saves

  struct Plan {
    int64_t start;  // of its elements in those of all layers
    C* v;
    C* parts;  // (row parts, cols) of Wᵀu
    C* dots;   // (column parts, rows) of Wv
    bool defined;
  };

  template <void (SpectralRun::*body)(int64_t, int64_t)>
  void in_parallel(int64_t n, int64_t grain) {
    parallel_for(
        n, grain, [](void* self, int64_t b, int64_t e) { (static_cast<SpectralRun*>(self)->*body)(b, e); }, this);
  }
  int64_t layers_a_thread() const { return 1 + count_ * kGrain * kSpectralRows / work_; }

  // visit(layer, plan, row part, column part, its first row, first column, rows, cols) for the tiles whose elements
  // begin within [begin, end) of those of all layers.
  template <class Visit>
  void tiles(int64_t begin, int64_t end, Visit visit) const {
    for (int64_t l = 0; l < count_; ++l) {
      const SpectralLayer& layer = layers_[l];
      const int64_t start = plans_[l].start;
      if (start >= end || start + layer.rows * layer.cols <= begin) continue;
      for (int64_t i = 0; i < layer.rows; i += kSpectralRows) {
        const int64_t rows = smaller(kSpectralRows, layer.rows - i);
        for (int64_t j = 0; j < layer.cols; j += kSpectralCols) {
          const int64_t at = start + i * layer.cols + j * rows;
          if (at >= begin && at < end) visit(layer, plans_[l], i, j, rows, smaller(kSpectralCols, layer.cols - j));
        }
      }
    }
  }

  void multiply_transposed(int64_t begin, int64_t end) {
    tiles(begin, end,
          [](const SpectralLayer& layer, const Plan& plan, int64_t i, int64_t j, int64_t rows, int64_t cols) {
            const T* const w = static_cast<const T*>(layer.weight) + i * layer.cols + j;
            C* const part = plan.parts + i / kSpectralRows * layer.cols + j;
            multiply_tile_transposed(part, w, static_cast<const C*>(layer.u) + i, rows, layer.cols, cols);
          });
  }

  void multiply(int64_t begin, int64_t end) {
    tiles(begin, end,
          [](const SpectralLayer& layer, const Plan& plan, int64_t i, int64_t j, int64_t rows, int64_t cols) {
            const T* const w = static_cast<const T*>(layer.weight) + i * layer.cols + j;
            C* const part = plan.dots + j / kSpectralCols * layer.rows + i;
            if (plan.defined) multiply_tile(part, w, plan.v + j, rows, layer.cols, cols);
          });
  }

  // v = Wᵀu / ‖Wᵀu‖, or what stands for it where that is zero or undefined.
  void finish_vs(int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) {
      const SpectralLayer& layer = layers_[l];
      Plan& plan = plans_[l];
      add_parts(plan.v, plan.parts, spectral_row_parts(layer.rows), layer.cols);
      const double length = length_of(plan.v, layer.cols);
      plan.defined = finite(length) && length > args_.eps;
      if (plan.defined) {
        divide(plan.v, plan.v, layer.cols, length);
        continue;
      }
      const C stand_in = finite(length) ? C(0) : not_a_number<C>();
      static_cast<C*>(args_.sigmas)[l] = stand_in;
      for (int64_t j = 0; j < layer.cols; ++j) plan.v[j] = stand_in;
      for (int64_t i = 0; i < layer.rows && !finite(length); ++i) static_cast<C*>(layer.u)[i] = stand_in;
    }
  }

  // u = Wv / ‖Wv‖ and σ = ‖Wv‖.
  void finish_us(int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) {
      const SpectralLayer& layer = layers_[l];
      const Plan& plan = plans_[l];
      if (!plan.defined) continue;
      add_parts(plan.dots, plan.dots, spectral_col_parts(layer.cols), layer.rows);
      const double sigma = length_of(plan.dots, layer.rows);
      static_cast<C*>(args_.sigmas)[l] = C(sigma);
      if (sigma > 0) divide(static_cast<C*>(layer.u), plan.dots, layer.rows, sigma);
    }
  }

  // sums may be the first part.
  static void add_parts(C* sums, const C* parts, int64_t count, int64_t size) {
    constexpr int64_t kBlock = 64;
    for (int64_t begin = 0; begin < size; begin += kBlock) {
      const int64_t width = smaller(kBlock, size - begin);
      double total[kBlock] = {};
      for (int64_t k = 0; k < count; ++k) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) total[i] += parts[k * size + begin + i];
      }
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sums[begin + i] = C(total[i]);
    }
  }

  static void divide(C* quotients, const C* values, int64_t size, double divisor) {
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) quotients[i] = C(double(values[i]) / divisor);
  }

  int64_t count_, work_ = 0;
  SpectralArgs args_;
  const SpectralLayer* layers_;
  Plan* plans_ = nullptr;
};

inline Status launch_spectral(const Batch& batch, const SpectralArgs& a) {
  switch (batch.dtype) {
    case DType::float32:
      return SpectralRun<float>(batch.rows, a).run();
    case DType::float64:
      return SpectralRun<double>(batch.rows, a).run();
    case DType::float16:
      return SpectralRun<float16>(batch.rows, a).run();
    case DType::bfloat16:
      return SpectralRun<bfloat16>(batch.rows, a).run();
  }
  return {Code::invalid_argument, "unknown dtype"};
}

#endif

PR_NAMESPACE_END
