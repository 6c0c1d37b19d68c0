// Code of the primal-dual (proximal) gradient step, for the CPU and for CUDA.
//
// Per row, with r = (adv − inputs) / width, ρ = λ₁ / λ₂ the weight of the norm, and w the diagonal metric of the step:
//   best      ← adv where it is adversarial (margin < 0) and nearer than the best
//   g         ← grad / ‖grad‖                      (by the dual norm, so that ρ near 1 balances both terms whatever the
//   logits' scale) g         ← g + ρ r / ‖r‖₂                     (gradient_l2 alone) m, v      ← Adam's moments; h =
//   √v̂ + 1e-8, or 1 for plain steps; w = h / step_size r         ← box(r − m̂ / w), then argmin_u ½ Σ w (u − r)² + ρ
//   ‖u‖, exactly (0 lies in the box and the minimiser between 0 and r,
//               so it stays inside)
//   dual      ← clamp(dual + dual_step sign(margin)); dual_average follows λ₁
// (seed 003, algorithms 2 and 3, corrected.) The fewest bytes: read adv, inputs, grad and the moments, write adv and
// the moments.
#pragma once

#include "../common/dual.h"
#include "../common/groups.h"
#include "attack_steps.h"

PR_NAMESPACE_BEGIN

template <class C>
struct Metric {
  C correction, inverse_step, floor;
  bool adaptive;
  PR_FN C operator()(C v) const {
    return (adaptive ? larger(square_root(v * correction), floor) + C(1e-8) : C(1)) * inverse_step;
  }
};

struct PrimalDualStep {
  template <class Row>
  static PR_FN void run(Row& row, const StepArgs& a) {
    using C = typename Row::Compute;
    const C margin = value<C>(row, a.margin), distance = value<C>(row, a.distance),
            best = value<C>(row, a.best_distance);
    const C average = value<C>(row, a.dual_average), dual = value<C>(row, a.dual);
    const bool better = margin < C(0) && distance < best;
    const double rho = double(average) / (1 - double(average));
    if (better) {
      for (int64_t c = 0; c < a.channels; ++c) {
        row.map([](C v, C& o) PR_LAMBDA { o = v; }, row.in_plane(a.adv, c, a.channels),
                row.out_plane(a.best, c, a.channels));
      }
    }
    const C now = a.prox == int(Prox::l0) ? step_l0(row, a, rho) : step_norm(row, a, rho, double(distance));
    row.sync();  // every thread has read the values of the row before the leader replaces them
    if (row.leader()) {
      if (better) value<C>(row, a.best_distance) = distance;
      value<C>(row, a.distance) = now;
      const C limit = C(a.dual_limit), next = clamp(dual + C(a.dual_step) * signum(margin), -limit, limit);
      const double first = 1 / (1 + double(exponential(double(next))));
      value<C>(row, a.dual) = margin == margin ? next : dual;
      value<C>(row, a.dual_average) = C(a.dual_momentum * double(average) + (1 - a.dual_momentum) * first);
    }
  }

 private:
  // Where Newton's method stops, relative.
  template <class C>
  static constexpr double kPrecision = sizeof(C) == 4 ? 0x1p-22 : 0x1p-50;

  template <class V, class Row>
  static PR_FN V& value(const Row& row, const void* values) {
    return static_cast<V*>(const_cast<void*>(values))[row.index()];
  }

  // The reciprocal of the norm of the gradient, in float64; 0 for a zero gradient.
  template <class Row>
  static PR_FN double gradient_scale(Row& row, const StepArgs& a) {
    if (a.normalize == 0) return 1;
    double norm = 0;
    for (int64_t c = 0; c < a.channels;
         ++c) {  // more than one plane for l0 alone, where the norm is the largest magnitude
      row.load(row.in_plane(a.grad, c, a.channels));
      norm = larger(norm, kept_norm(row, a.normalize));
    }
    return norm > 0 ? 1 / norm : 0;
  }

  template <class C>
  static PR_FN Metric<C> metric(const StepArgs& a) {
    return {C(1 / a.correction2), C(1 / a.step_size), C(0), a.adaptive != 0};
  }

  // The moments' update and the step r − m̂ / w inside the box, in units of the box width.
  template <class C>
  struct Advance {
    Factor<C> scale, pull;
    C beta1, beta2, rest1, rest2, correction, low, high, width, inverse_width;  // rest = 1 − beta, rounded once
    Metric<C> w;
    PR_FN C operator()(C g, C adv, C x, C& m, C& v) const {
      const C gradient = scale(g) + pull(adv - x);
      m = beta1 * m + rest1 * gradient;
      v = beta2 * v + rest2 * gradient * gradient;
      return (clamp(adv - width * (m * correction) / w(v), low, high) - x) * inverse_width;
    }
  };
  template <class C>
  static PR_FN Advance<C> advance(const StepArgs& a, double scale, double pull) {
    const double width = a.high - a.low;
    return {Factor<C>(scale),     Factor<C>(pull), C(a.beta1), C(a.beta2), C(1 - a.beta1), C(1 - a.beta2),
            C(1 / a.correction1), C(a.low),        C(a.high),  C(width),   C(1 / width),   metric<C>(a)};
  }

  template <class Row>
  static PR_FN typename Row::Compute step_norm(Row& row, const StepArgs& a, double rho, double distance) {
    using C = typename Row::Compute;
    const double scale = gradient_scale(row, a);
    const Prox prox = static_cast<Prox>(a.prox);
    const double pull = prox == Prox::gradient_l2 && distance > 0 ? rho / distance : 0;
    const auto step = advance<C>(a, scale, pull);
    const auto squares = row.wide_inout(a.exp_avg_sq);
    const In<C> v_now = {squares.data};
    row.load(step, row.in(a.grad), row.in(a.adv), row.in(a.inputs), row.wide_inout(a.exp_avg), squares);
    auto w = metric<C>(a);
    if (a.damping > 0 && prox != Prox::gradient_l2) {
      w.floor = C(a.damping) * square_root(row.max([](C, C v) PR_LAMBDA { return v; }, v_now) * w.correction);
    }
    const C weight = C(rho);
    if (prox == Prox::l1) {
      row.update([weight, w](C r, C v) PR_LAMBDA { return copy_sign(positive(absolute(r) - weight / w(v)), r); },
                 v_now);
    } else if (prox == Prox::linf) {
      const C level = C(linf_level(row, w, v_now, rho));
      row.update([level](C r) PR_LAMBDA { return clamp(r, -level, level); });
    } else if (prox == Prox::l2) {
      const C size = C(l2_size(row, w, v_now, rho));
      row.update(
          [=](C r, C v) PR_LAMBDA {
            const C ws = w(v) * size;
            return size > C(0) ? r * (ws / (ws + weight)) : C(0);
          },
          v_now);
    }
    const C low = C(a.low), high = C(a.high), width = C(a.high - a.low);
    row.update(
        [=](C r, C x, C& adv) PR_LAMBDA {
          adv = clamp(x + r * width, low, high);
          return adv - x;
        },
        row.in(a.inputs), row.out(a.adv));
    return C(kept_norm(row, prox == Prox::l1 ? 1 : prox == Prox::linf ? infinity<double>() : 2));
  }

  // The level t of the clamp that minimises ½ Σ w (u − r)² + ρ ‖u‖∞: Σ w (|r| − t)₊ = ρ, by Newton's method (as in
  // newton_threshold, with weights).
  template <class Row, class W, class V>
  static PR_FN double linf_level(Row& row, W w, V v_now, double rho) {
    using C = typename Row::Compute;
    double level = 0, active = -1;
    for (int step = 0; step < 100; ++step) {
      const C t = C(level);
      const Two<double> above = row.sum2(
          [w, t](C r, C v) PR_LAMBDA {
            const C excess = absolute(r) - t, weight = w(v);
            return Two<C>{weight * positive(excess), excess > C(0) ? weight : C(0)};
          },
          v_now);
      if (above.second <= 0) return level;
      const double rise = (above.first - rho) / above.second;
      if (step == 0 && rise <= 0) return 0;
      level = double(t) + rise;
      if (above.second == active || rise <= kPrecision<C> * level) break;  // it rises to the root, but for rounding
      active = above.second;
    }
    return level;
  }

  // The size s = ‖u‖₂ of the minimiser u = r w s / (w s + ρ) of ½ Σ w (u − r)² + ρ ‖u‖₂: Σ (w r / (w s + ρ))² = 1; 0
  // where ‖w r‖₂ ≤ ρ. Newton's method on the square root of the sum, from 0, increases to the root.
  template <class Row, class W, class V>
  static PR_FN double l2_size(Row& row, W w, V v_now, double rho) {
    using C = typename Row::Compute;
    if (!(rho > 0)) return 1;  // u = r, whatever the size
    double size = 0;
    const C weight = C(rho);
    for (int step = 0; step < 50; ++step) {
      const C s = C(size);
      const Two<double> at = row.sum2(
          [w, s, weight](C r, C v) PR_LAMBDA {
            const C wv = w(v), below = wv * s + weight, q = wv * r / below;
            return Two<C>{q * q, q * q * wv / below};
          },
          v_now);
      if (!(at.first > 1) || !(at.second > 0)) break;
      const double rise = at.first * (square_root(at.first) - 1) / at.second;
      size = double(s) + rise;
      if (rise <= kPrecision<C> * size) break;
    }
    return size;
  }

  // l0 by groups over the planes: a group is kept iff ½ Σ_g w r² > ρ, the exact prox in the metric. Returns the count.
  template <class Row>
  static PR_FN typename Row::Compute step_l0(Row& row, const StepArgs& a, double rho) {
    using C = typename Row::Compute;
    const auto step = advance<C>(a, gradient_scale(row, a), 0);
    const C low = C(a.low), high = C(a.high), width = C(a.high - a.low);
    for (int64_t c = 0; c < a.channels; ++c) {
      const auto move = [=](C kept, C g, C x, C& adv, C& m, C& v) PR_LAMBDA {
        const C r = step(g, adv, x, m, v);
        adv = clamp(x + r * width, low, high);
        return kept + step.w(v) * r * r;
      };
      const auto arrays = [&](auto use) {
        use(row.in_plane(a.grad, c, a.channels), row.in_plane(a.inputs, c, a.channels),
            row.inout_plane(a.adv, c, a.channels), row.wide_inout_plane(a.exp_avg, c, a.channels),
            row.wide_inout_plane(a.exp_avg_sq, c, a.channels));
      };
      if (c == 0) {
        arrays([&](auto... all) { row.load([move](auto&... e) PR_LAMBDA { return move(C(0), e...); }, all...); });
      } else {
        arrays([&](auto... all) { row.update(move, all...); });
      }
    }
    const C threshold = C(2 * rho);
    for (int64_t c = 0; c < a.channels; ++c) {
      row.each([threshold](C size, C x, C& adv) PR_LAMBDA { adv = size <= threshold ? x : adv; },
               row.in_plane(a.inputs, c, a.channels), row.inout_plane(a.adv, c, a.channels));
    }
    return C(
        row.sum([threshold](C size) PR_LAMBDA { return size > threshold ? C(1) : (size <= threshold ? C(0) : size); }));
  }
};

PR_NAMESPACE_END
