// Searches and norms over one row, written once on the row passes.
#pragma once

#include "row.h"

PR_NAMESPACE_BEGIN

// A number with twice the precision of C, as high + low, so that x − τ keeps its relative accuracy when τ is close to
// x.
template <class C>
struct Split {
  C high, low;
  PR_FN explicit Split(double value) : high(C(value)), low(C(value - double(C(value)))) {}
  PR_FN C below(C x) const { return (x - high) - low; }  // x − value
};

template <class C>
PR_FN C infinity() {
  return C(__builtin_inff());
}
template <class C>
PR_FN C not_a_number() {
  return C(__builtin_nanf(""));
}

// Powers of two that bring every finite sum or sum of squares of a row back into range.
template <class C>
PR_FN C downscale() {
  return sizeof(C) == 4 ? C(0x1p-80f) : C(0x1p-600);
}

// ‖f(kept, elements…)‖₂, safe against overflow and underflow of the squares; NaN and ±Inf propagate.
template <class Row, class F, class... A>
PR_SEARCH double norm2(Row& row, F f, A... arrays) {
  using C = typename Row::Compute;
  const double squares = row.sum(
      [f](C v, auto&... e) PR_LAMBDA {
        const C x = f(v, e...);
        return x * x;
      },
      arrays...);
  const double floor = sizeof(C) == 4 ? 1e-30 : 1e-280;  // below, squares may have been flushed
  if (squares > floor && squares <= 1e300) return square_root(squares);
  const C most = row.max(f, arrays...);
  if (!(most > C(0)) || !finite(most)) return most;
  const C scale = most;
  const double ratio = row.sum(
      [f, scale](C v, auto&... e) PR_LAMBDA {
        const C x = f(v, e...) / scale;
        return x * x;
      },
      arrays...);
  return double(most) * square_root(ratio);
}

// Multiplies by a number that may be out of C's range, as 1 / ‖x‖ is for the tiniest and the largest rows: by two
// factors that are not.
template <class C>
struct Factor {
  C first, second;
  PR_FN explicit Factor(double value) : first(1), second(C(value)) {
    constexpr double kEdge = sizeof(C) == 4 ? 0x1p100 : 0x1p900;
    if (value > kEdge) first = C(kEdge), second = C(value / kEdge);
    if (value < 1 / kEdge) first = C(1 / kEdge), second = C(value * kEdge);
  }
  PR_FN C operator()(C v) const { return v * first * second; }
};

// The level τ of a soft threshold, as found by the searches below.
struct Level {
  double tau;
  bool valid;  // false: NaN or ±Inf in the row or in the mass
};

// Newton's method for Σᵢ (f(vᵢ) − τ)₊ = mass, from any τ below the largest f: the sum is convex and piecewise linear in
// τ, so the iterates increase to the root from the second on, and the root of the final active set is exact (Michelot
// 1986, Condat 2016). Returns NaN where a sum was not finite.
template <class Row, class F>
PR_SEARCH double newton_threshold(Row& row, double mass, double tau, double count, int most_steps, F f) {
  using C = typename Row::Compute;
  constexpr double kTolerance = sizeof(C) == 4 ? 4 * 0x1p-24 : 4 * 0x1p-53;
  bool rising = false;  // the level is left of the root, but for rounding
  for (int step = 0; step < most_steps; ++step) {
    const C level = C(tau);  // evaluating at a rounded level loses nothing: the correction below starts from it
    const Two<double> above = row.sum2([f, level](C v) PR_LAMBDA {
      const C excess = f(v) - level;
      return Two<C>{positive(excess), excess > C(0) ? C(1) : C(0)};
    });
    if (!(above.first - above.first == 0)) return not_a_number<C>();
    if (above.second == 0) {  // rounding put the level too high; just below the largest f the excess is exact
      tau = next_below(row.most([f](C v, int64_t) PR_LAMBDA { return f(v); }, position()).value);
      rising = false;
      continue;
    }
    tau = double(level) + (above.first - mass) / above.second;
    // Done when the active set stayed, or when what is left to correct is below the rounding of the sum itself.
    if (above.second == count || absolute(above.first - mass) <= kTolerance * mass) break;
    if (rising && above.first <= mass) break;
    count = above.second;
    rising = true;
  }
  return tau;
}

constexpr int kMostNewtonSteps = 200;  // a guard: the active set shrinks at every step, about ten steps are usual

// The threshold of a projection onto a simplex (`ball` false) or, for f ≥ 0, onto an l1 ball (`ball` true: τ = 0 where
// the sum is within the mass already).
template <class Row, class F>
PR_SEARCH Level find_threshold(Row& row, double mass, bool ball, F f) {
  using C = typename Row::Compute;
  if (!(mass >= 0)) return {0, false};
  C scale = 1;
  for (;;) {
    const auto scaled = [f, scale](C v) PR_LAMBDA { return f(v) * scale; };
    const double sum = row.sum(scaled), target = mass * scale, size = double(row.size());
    if (ball && sum <= target) return {0, true};
    const double tau = newton_threshold(row, target, (sum - target) / size, size, kMostNewtonSteps, scaled);
    if (tau - tau == 0) return {tau / double(scale), true};
    if (scale != C(1) || !finite(row.max(f))) return {0, false};  // NaN or ±Inf; else sums or differences overflowed
    scale = downscale<C>();
  }
}

// What an op writes to a row whose result is undefined: NaN in every element.
template <class Row>
PR_FN void write_nan(Row& row, void* output) {
  using C = typename Row::Compute;
  row.map([](C& o) PR_LAMBDA { o = not_a_number<C>(); }, row.out(output));
}

// sign(v) (|v| − τ)₊
template <class C>
PR_FN C soft_threshold(C v, Split<C> level) {
  return copy_sign(positive(level.below(absolute(v))), v);
}

PR_NAMESPACE_END
