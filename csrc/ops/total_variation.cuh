// prox of λ TV on a plane x: u = x − Dᵀg with g the minimiser of ½ ‖x − Dᵀg‖² over |g| ≤ λ, by the fast gradient
// projection of Beck & Teboulle (2009), restarted where the momentum points uphill (O'Donoghue & Candès 2015).
//
// D u = (u[i, j] − u[i + 1, j], u[i, j] − u[i, j + 1]), zero past the border; ‖D‖² ≤ 8 gives the step. |g| ≤ λ holds
// for each place's pair (p, q) in the Euclidean norm (isotropic) or for each number (anisotropic). The iteration stops
// when the duality gap λ TV(u) − ⟨Du, g⟩, a sum of terms >= 0, is at most `tolerance` of the primal value λ TV(u) + ½
// ‖u − x‖².
//
// A plane is scaled by a power of two to a largest magnitude in [1, 2), so that no square overflows; the prox is
// homogeneous.
#pragma once

#include "../common/row_math.h"
#include "total_variation.h"

PR_NAMESPACE_BEGIN

constexpr int64_t kTvCheckEvery = 8;

template <class C>
struct DualPair {
  C p, q;
};

// The nearest point with |g| ≤ level.
template <bool ISOTROPIC, class C>
PR_FN DualPair<C> project_dual(C p, C q, C level) {
  if constexpr (ISOTROPIC) {
    const C factor = level / larger(square_root(p * p + q * q), level);
    return {p * factor, q * factor};
  } else {
    return {clamp(p, -level, level), clamp(q, -level, level)};
  }
}

// |Du| at one place.
template <bool ISOTROPIC, class C>
PR_FN C variation(C down, C right) {
  if constexpr (ISOTROPIC) {
    return square_root(down * down + right * right);
  } else {
    return absolute(down) + absolute(right);
  }
}

// What precedes the iteration: scale and weight of a plane whose largest magnitude is `most`.
template <class C>
struct TvScale {
  C scale = 1, inverse = 1, level = 0;
  bool valid;

  PR_FN TvScale(C most, C weight) {
    valid = finite(most) && weight >= C(0);
    constexpr C kLeast =
        sizeof(C) == 4 ? C(0x1p-126) : C(0x1p-1022);  // subnormal planes are scaled as if they were normal
    const auto exponent_bits = magnitude_bits(C(__builtin_inff()));
    if (most > C(0)) scale = larger(from_magnitude(magnitude_bits(most) & exponent_bits), kLeast);
    inverse = C(1) / scale;
    level = smaller(weight * inverse,
                    C(0x1p40));  // from there on the result is the plane's mean, and an infinite weight is finite
  }
};

// The momentum of the iteration.
template <class C>
struct Momentum {
  double t = 1;
  C beta = 0;

  // `uphill`: ⟨r − g⁺, g⁺ − g⟩ of the step that was just taken from r.
  PR_FN void advance(double uphill) {
    if (uphill > 0) t = 1;
    const double next = (1 + square_root(1 + 4 * t * t)) / 2;
    beta = C((t - 1) / next);
    t = next;
  }
};

#if defined(__CUDACC__) || defined(PR_EMULATE_CUDA)

// A plane held by a team; element k is visited by the same thread in every pass. Neighbours are read only from the pass
// before, a barrier ago: team_sum() has one for teams of more than a warp.
template <class T, bool ISOTROPIC>
class TvTeam {
 public:
  using C = compute_t<T>;

  PR_FN TvTeam(const TotalVariationArgs& a, int64_t row, int64_t plane, C* memory)
      : x_(static_cast<const T*>(a.x) + plane * a.height * a.width),
        out_(static_cast<T*>(a.out) + plane * a.height * a.width),
        width_(int(a.width)),
        size_(int(a.height * a.width)),
        u_(memory),
        p_(u_ + size_),
        q_(p_ + size_),
        p_before_(q_ + size_),
        q_before_(p_before_ + size_),
        weight_(a.weight.values ? static_cast<const C*>(a.weight.values)[row] : C(a.weight.value)) {}

  PR_FN void run(int64_t steps, double tolerance) {
    auto most = magnitude_bits(C(0));
    each([&](int k, int) {
      const auto bits = magnitude_bits(to_compute(x_[k]));
      most = bits > most ? bits : most;
      p_[k] = q_[k] = p_before_[k] = q_before_[k] = 0;
    });
    const TvScale<C> scale(from_magnitude(team_max(most)), weight_);
    const bool zero = scale.level == C(0);
    if (zero || !scale.valid) {
      each([&](int k, int) { out_[k] = FromCompute<T>::of(scale.valid ? to_compute(x_[k]) : not_a_number<C>()); });
      return;
    }
    scale_ = scale;
    Momentum<C> momentum;
    for (int64_t step = 0; step < steps; ++step) {
      if (step % kTvCheckEvery == 0 && converged(tolerance)) break;
      find_primal(momentum.beta);
      team_sync();
      momentum.advance(advance_dual(momentum.beta));
    }
    find_primal(0);
    each([&](int k, int) { out_[k] = FromCompute<T>::of(u_[k] * scale_.scale); });
  }

 private:
  // f(k, column) for this thread's elements.
  template <class F>
  PR_FN void each(F f) const {
    const int stride = team_size(), column_stride = stride % width_;
    int column = team_member() % width_;
    for (int k = team_member(); k < size_; k += stride) {
      f(k, column);
      column += column_stride;
      if (column >= width_) column -= width_;
    }
  }

  // u = x − Dᵀr with r = g + β (g − g_before).
  PR_FN void find_primal(C beta) const {
    const auto p = [&](int k) { return p_[k] + beta * (p_[k] - p_before_[k]); };
    const auto q = [&](int k) { return q_[k] + beta * (q_[k] - q_before_[k]); };
    each([&](int k, int column) {
      const C above = k >= width_ ? p(k - width_) : C(0);
      const C left = column > 0 ? q(k - 1) : C(0);
      u_[k] = to_compute(x_[k]) * scale_.inverse - ((p(k) - above) + (q(k) - left));
    });
  }

  PR_FN DualPair<C> difference(int k, int column) const {
    const C here = u_[k];
    return {k + width_ < size_ ? here - u_[k + width_] : C(0), column + 1 < width_ ? here - u_[k + 1] : C(0)};
  }

  // g⁺ = P(r + Du / 8), which takes the place of g_before and then of g; returns ⟨r − g⁺, g⁺ − g⟩.
  PR_FN double advance_dual(C beta) {
    C uphill = 0;
    each([&](int k, int column) {
      const C p = p_[k], q = q_[k];
      const C rp = p + beta * (p - p_before_[k]), rq = q + beta * (q - q_before_[k]);
      const DualPair<C> d = difference(k, column);
      const DualPair<C> next = project_dual<ISOTROPIC>(rp + C(0.125) * d.p, rq + C(0.125) * d.q, scale_.level);
      uphill += (rp - next.p) * (next.p - p) + (rq - next.q) * (next.q - q);
      p_before_[k] = next.p;
      q_before_[k] = next.q;
    });
    swap(p_, p_before_);
    swap(q_, q_before_);
    return team_sum(uphill);
  }

  PR_FN bool converged(double tolerance) const {
    find_primal(0);
    team_sync();
    C gap = 0, value = 0;
    each([&](int k, int column) {
      const DualPair<C> d = difference(k, column);
      const C cost = scale_.level * variation<ISOTROPIC>(d.p, d.q);
      const C moved = u_[k] - to_compute(x_[k]) * scale_.inverse;
      gap += positive(cost - (d.p * p_[k] + d.q * q_[k]));
      value += cost + C(0.5) * moved * moved;
    });
    const double whole_gap = team_sum(gap);
    return whole_gap <= tolerance * team_sum(value);
  }

  static PR_FN void swap(C*& a, C*& b) {
    C* const kept = a;
    a = b;
    b = kept;
  }

  const T* x_;
  T* out_;
  int width_, size_;
  C *u_, *p_, *q_, *p_before_, *q_before_;
  C weight_;
  TvScale<C> scale_{C(0), C(0)};
};

// SHARED: a block holds the plane on chip; else it lives in the workspace, and a cluster of blocks may share it.
template <class T, bool ISOTROPIC, bool SHARED>
__global__ void __launch_bounds__(kMostThreads) prox_tv_kernel(Batch batch, TotalVariationArgs a) {
  using C = compute_t<T>;
  const int64_t plane = team_index(), size = a.height * a.width, row = plane / (batch.cols / size);
  C* memory;
  if constexpr (SHARED) {
    memory = dynamic_shared<C>();
  } else {
    memory = static_cast<C*>(a.workspace) + plane * kTvArrays * size;
  }
  TvTeam<T, ISOTROPIC>(a, row, plane, memory).run(a.steps, a.tolerance);
}

template <class T, bool ISOTROPIC>
Status run_tv(const Batch& batch, const TotalVariationArgs& a) {
  const int64_t size = a.height * a.width, planes = batch.rows * (batch.cols / size);
  const int64_t wanted = size <= 64 ? 64 : (size + 31) / 32 * 32;  // more than a warp: see TvTeam
  const int threads = int(wanted < kMostThreads ? wanted : kMostThreads);
  if (prox_tv_space(a.height, a.width, batch.dtype) == 0) {
    const int64_t bytes = kTvArrays * size * int64_t(sizeof(compute_t<T>));
    return launch(prox_tv_kernel<T, ISOTROPIC, true>, planes, threads, 1, bytes, batch, a);
  }
  int cluster = 1;
  while (2 * cluster <= max_cluster(batch.device) && size > int64_t(8) * kMostThreads * cluster) cluster *= 2;
  return launch(prox_tv_kernel<T, ISOTROPIC, false>, planes, threads, cluster, 0, batch, a);
}

template <class T>
Status launch_tv(const Batch& batch, const TotalVariationArgs& a) {
  const DeviceGuard guard(batch.device);
  if (guard.error() != cudaSuccess) return cuda_status(guard.error());
  if (a.height * a.width > (int64_t(1) << 30)) return {Code::invalid_argument, "a plane has more than 2^30 elements"};
  return a.isotropic ? run_tv<T, true>(batch, a) : run_tv<T, false>(batch, a);
}

#else  // the CPU

// A plane held by a thread. A sweep goes down the plane in bands of rows, with their r and u in the first-level cache,
// so that an iteration passes over the plane once. Loops run over a band as one line: q is zero at the end of a row, so
// it is also what stands left of the next; and a mask takes out differences across that border.
template <class T, bool ISOTROPIC>
class TvPlane {
 public:
  using C = compute_t<T>;

  TvPlane(int64_t height, int64_t width, C* memory) : height_(height), width_(width), band_(band(height, width)) {
    const int64_t size = height * width, window = (band_ + 1) * width + 2;
    x_ = memory, p_ = x_ + size, q_ = p_ + size, p_before_ = q_ + size, q_before_ = p_before_ + size;
    u_ = q_before_ + size + 1, rp_ = u_ + window, rq_ = rp_ + window, mask_ = rq_ + window;
  }

  // Elements of memory.
  static int64_t space(int64_t height, int64_t width) {
    return kTvArrays * height * width + 4 * ((band(height, width) + 1) * width + 2);
  }

  void run(const T* x, T* out, C weight, int64_t steps, double tolerance) {
    const int64_t size = height_ * width_;
    auto most = magnitude_bits(C(0));
    for (int64_t k = 0; k < size; ++k) {
      const auto bits = magnitude_bits(to_compute(x[k]));
      most = bits > most ? bits : most;
    }
    const TvScale<C> scale(from_magnitude(most), weight);
    if (!scale.valid || scale.level == C(0)) {
      for (int64_t k = 0; k < size; ++k) out[k] = scale.valid ? x[k] : FromCompute<T>::of(not_a_number<C>());
      return;
    }
    level_ = scale.level;
    const C inverse = scale.inverse, factor = scale.scale;
#pragma omp simd
    for (int64_t k = 0; k < size; ++k) x_[k] = to_compute(x[k]) * inverse;
    for (int64_t k = size; k < 5 * size; ++k) x_[k] = 0;  // the dual arrays, whichever is which after the plane before
    for (int64_t k = 0; k < band_ * width_; ++k) mask_[k] = (k + 1) % width_ ? C(1) : C(0);
    rq_[-1] = u_[(band_ + 1) * width_] = 0;
    Momentum<C> momentum;
    for (int64_t step = 0; step < steps; ++step) {
      if (step % kTvCheckEvery == 0 && converged(tolerance)) break;
      momentum.advance(advance_dual(momentum.beta));
    }
    sweep(0, [&](int64_t at, int64_t n, const C* u, const C*, const C*, const C*) {
#pragma omp simd
      for (int64_t k = 0; k < n; ++k) out[at + k] = FromCompute<T>::of(u[k] * factor);
    });
  }

 private:
  static int64_t band(int64_t height, int64_t width) { return smaller(larger(1024 / width, int64_t(1)), height); }

  // r = g + β (g − g_before) and u = x − Dᵀr of `n` elements from `at` on, into the window from its second row on; its
  // first holds the row above.
  PR_FN void load_band(int64_t at, int64_t n, C beta) const {
    const C *const p = p_ + at, *const q = q_ + at, *const x = x_ + at;
    const C *const p_before = p_before_ + at, *const q_before = q_before_ + at;
    C *const rp = rp_ + width_, *const rq = rq_ + width_, *const u = u_ + width_;
    const C* const above = rp_;
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) {
      rp[k] = p[k] + beta * (p[k] - p_before[k]);
      rq[k] = q[k] + beta * (q[k] - q_before[k]);
    }
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) u[k] = x[k] - ((rp[k] - above[k]) + (rq[k] - rq[k - 1]));
  }

  // visit(at, n, u, u of the row below, r) for whole rows, `n` elements from `at` on.
  template <class Visit>
  PR_FN void sweep(C beta, Visit visit) const {
    for (int64_t j = 0; j < width_; ++j) rp_[j] = rq_[j] = 0;
    for (int64_t i = 0; i < height_; i += band_) {
      const int64_t rows = smaller(band_, height_ - i), n = rows * width_, at = i * width_;
      load_band(at, n, beta);
      // A row is visited when that below is there.
      const int64_t skip = i == 0 ? width_ : 0;
      visit(at + skip - width_, n - skip, u_ + skip, u_ + skip + width_, rp_ + skip, rq_ + skip);
      if (i + rows == height_) return visit(at + n - width_, width_, u_ + n, u_ + n, rp_ + n, rq_ + n);
      for (int64_t j = 0; j < width_; ++j) u_[j] = u_[n + j], rp_[j] = rp_[n + j], rq_[j] = rq_[n + j];
    }
  }

  PR_FN double advance_dual(C beta) {
    double uphill = 0;
    const C level = level_;
    sweep(beta, [&](int64_t at, int64_t n, const C* u, const C* below, const C* rp, const C* rq) PR_LAMBDA {
      const C *const p = p_ + at, *const q = q_ + at, *const mask = mask_;
      C *const p_next = p_before_ + at, *const q_next = q_before_ + at;
      C sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = 0; k < n; ++k) {
        const C down = u[k] - below[k], right = mask[k] * (u[k] - u[k + 1]);
        const DualPair<C> next = project_dual<ISOTROPIC>(rp[k] + C(0.125) * down, rq[k] + C(0.125) * right, level);
        sum += (rp[k] - next.p) * (next.p - p[k]) + (rq[k] - next.q) * (next.q - q[k]);
        p_next[k] = next.p;
        q_next[k] = next.q;
      }
      uphill += sum;
    });
    swap(p_, p_before_);
    swap(q_, q_before_);
    return uphill;
  }

  PR_FN bool converged(double tolerance) const {
    double gap = 0, value = 0;
    const C level = level_;
    sweep(0, [&](int64_t at, int64_t n, const C* u, const C* below, const C* p, const C* q) PR_LAMBDA {
      const C *const x = x_ + at, *const mask = mask_;
      C part_gap = 0, part_value = 0;
#pragma omp simd reduction(+ : part_gap, part_value)
      for (int64_t k = 0; k < n; ++k) {
        const C down = u[k] - below[k], right = mask[k] * (u[k] - u[k + 1]), moved = u[k] - x[k];
        const C cost = level * variation<ISOTROPIC>(down, right);
        part_gap += positive(cost - (down * p[k] + right * q[k]));
        part_value += cost + C(0.5) * moved * moved;
      }
      gap += part_gap;
      value += part_value;
    });
    return gap <= tolerance * value;
  }

  static void swap(C*& a, C*& b) {
    C* const kept = a;
    a = b;
    b = kept;
  }

  int64_t height_, width_, band_;
  C *x_, *p_, *q_, *p_before_, *q_before_;
  C *u_, *rp_, *rq_;  // the window: the row above a band, and the band
  C* mask_;           // of a band
  C level_ = 0;
};

template <class T, bool ISOTROPIC>
Status run_tv(const Batch& batch, const TotalVariationArgs& a) {
  struct Context {
    const Batch& batch;
    const TotalVariationArgs& a;
  } context{batch, a};
  parallel_for(
      batch.rows * (batch.cols / (a.height * a.width)), 1,
      [](void* opaque, int64_t begin, int64_t end) {
        using C = compute_t<T>;
        const auto& [batch, a] = *static_cast<const Context*>(opaque);
        const int64_t size = a.height * a.width, planes = batch.cols / size;
        const int64_t bytes = TvPlane<T, ISOTROPIC>::space(a.height, a.width) * int64_t(sizeof(C));
        TvPlane<T, ISOTROPIC> plane(a.height, a.width, static_cast<C*>(thread_scratch(bytes)));
        for (int64_t k = begin; k < end; ++k) {
          const C weight = a.weight.values ? static_cast<const C*>(a.weight.values)[k / planes] : C(a.weight.value);
          plane.run(static_cast<const T*>(a.x) + k * size, static_cast<T*>(a.out) + k * size, weight, a.steps,
                    a.tolerance);
        }
      },
      &context);
  return {};
}

template <class T>
Status launch_tv(const Batch& batch, const TotalVariationArgs& a) {
  return a.isotropic ? run_tv<T, true>(batch, a) : run_tv<T, false>(batch, a);
}

#endif

PR_NAMESPACE_END
