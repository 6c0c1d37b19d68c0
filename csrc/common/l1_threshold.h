// The threshold of the l1-ball projection, the search behind project_l1_ball, prox_linf and the l1 attack steps.
#pragma once

#include "row_math.h"

#if !defined(__CUDACC__) && !defined(PR_EMULATE_CUDA)
#include "compress.h"
#endif

PR_NAMESPACE_BEGIN

#if !defined(__CUDACC__) && !defined(PR_EMULATE_CUDA)

template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(kVectorBytes)));
  typedef C sixteen_bytes __attribute__((vector_size(16)));
};
template <class C>
using Vector = typename VectorOf<C>::type;

template <class V>
PR_FN V read(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// All lanes of v brought together by f, which takes vectors and scalars. One trip through memory: the compiler would
// make one for each halving.
template <class C, class F>
PR_FN C fold(Vector<C> v, F f) {
  using Part = typename VectorOf<C>::sixteen_bytes;
  constexpr int kParts = kVectorBytes / 16;
  Part parts[kParts];
  __builtin_memcpy(parts, &v, sizeof v);
  for (int half = kParts / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) parts[k] = f(parts[k], parts[k + half]);
  if constexpr (sizeof(C) == 4) return f(f(parts[0][0], parts[0][2]), f(parts[0][1], parts[0][3]));
  return f(parts[0][0], parts[0][1]);
}
template <class C>
PR_FN C sum_of(Vector<C> v) {
  return fold<C>(v, [](auto a, auto b) PR_LAMBDA { return a + b; });
}

// Σ (v − level)₊, how many v are above, and the smallest excess among them.
struct Excess {
  double sum, active, nearest;
};

// Of `count` values, a multiple of 16. Vectors by hand: this loop runs on a few hundred values several times a row, so
// the instructions that end it weigh as much as those inside.
template <class C>
PR_FN Excess excess_above(const C* values, int64_t count, C level) {
  using V = Vector<C>;
  constexpr int kLanes = kVectorBytes / int(sizeof(C));
  constexpr int64_t kChunk = 1024;  // as in CpuRow: short float sums, carried on in float64
  const V none = V{} + infinity<C>();
  V nearest = none;
  Excess total = {0, 0, 0};
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = begin + kChunk < count ? begin + kChunk : count;
    V sum = {}, active = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const V excess = read<V>(values + i) - level;
      const auto below = excess <= V{};  // false for NaN, which so reaches the sum
      sum += below ? V{} : excess;
      active += below ? V{} : V{} + C(1);
      const V candidate = below ? none : excess;
      nearest = candidate < nearest ? candidate : nearest;
    }
    total.sum += sum_of<C>(sum), total.active += sum_of<C>(active);
  }
  total.nearest = fold<C>(nearest, [](auto a, auto b) PR_LAMBDA { return b < a ? b : a; });
  return total;
}

// About the natural logarithm, off by 0.06 at most: for guesses.
PR_FN double rough_log(float x) { return 0.69314718 * (double(bit_cast<int32_t>(x)) * 0x1p-23 - 127 + 0.043); }

// On a CPU every pass costs; a GPU team holds the row in registers and needs none of this. A sample of the row gives a
// guess of τ; one pass compresses the magnitudes that are above nine tenths of it, and Newton's method (see
// newton_threshold) runs on those few. The guess is checked, never trusted: from the first iterate on they only
// increase, so the elements above the first one are all that can matter; if it lands below what was compressed, they
// are compressed again. Returns a negative number where the shortcut does not apply.
template <class Row>
PR_SEARCH double l1_threshold_by_sample(Row& row, double mass) {
  using C = typename Row::Compute;
  using V = Vector<C>;
  constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(C)), kBlock = 16, kStride = 128, kMost = 4096;
  const int64_t n = row.size();
  if (n < 2 * kStride || row.kept() == row.scratch()) return -1;
  alignas(64) C sample[kMost];
  const int64_t stride = n > kStride * (kMost / kBlock) ? (n / (kMost / kBlock) / kBlock + 1) * kBlock : kStride;
  int64_t taken = 0;
  V total = {};
  for (int64_t i = 0; i + kBlock <= n; i += stride, taken += kBlock) {
    for (int64_t j = 0; j < kBlock; j += kLanes) {
      const V v = read<V>(row.kept() + i + j), magnitude = v < V{} ? -v : v;
      total += magnitude;
      __builtin_memcpy(sample + taken + j, &magnitude, sizeof magnitude);
    }
  }
  const double share = mass * double(taken) / double(n), sum = sum_of<C>(total);
  if (!(sum > 2 * share && sum <= 1e30)) return -1;  // near or inside the ball, or out of the range of the guess
  // τ of an exponential distribution with the sample's mean, shortened because most tails are lighter; one Newton step.
  const C start = C(0.65 * sum / double(taken) * rough_log(float(sum / share)));
  const Excess seen = excess_above(sample, taken, start);
  const C guess = C(double(start) + (seen.active > 0 ? (seen.sum - share) / seen.active : 0));
  C floor = C(0.9) * guess;
  if (!(floor > C(0))) return -1;
  int64_t count = compress_above(row.kept(), n, floor, row.scratch());
  double tau = double(guess);
  C level = guess;
  for (int step = 0; step < kMostNewtonSteps; ++step) {
    const Excess above = excess_above(row.scratch(), count, level);
    if (!(above.sum - above.sum == 0) || above.active == 0) return -1;
    const double rise = (above.sum - mass) / above.active;
    tau = double(level) + rise;
    // Final when no element lies between and the sum was near the mass, for its rounding is relative to the sum.
    if ((rise >= 0 || step > 0) && rise < above.nearest && above.sum <= 2 * mass) return tau;
    level = C(tau);
    if (level < floor) {
      if (step > 0 || !(tau > 0)) return -1;  // near or inside the ball
      floor = level * (1 - (sizeof(C) == 4 ? C(0x1p-22f) : C(0x1p-50)));
      count = compress_above(row.kept(), n, floor, row.scratch());
    }
  }
  return -1;
}

#endif

// τ of the projection of the kept values onto the l1 ball of the given radius.
template <class Row>
PR_SEARCH Level l1_threshold(Row& row, double radius) {
  using C = typename Row::Compute;
#if !defined(__CUDACC__) && !defined(PR_EMULATE_CUDA)
  if (radius > 0) {
    const double tau = l1_threshold_by_sample(row, radius);
    if (tau > 0) return {tau, true};
  }
#endif
  return find_threshold(row, radius, true, [](C v) PR_LAMBDA { return absolute(v); });
}

PR_NAMESPACE_END
