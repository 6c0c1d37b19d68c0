// Code of the projections, for the CPU and for CUDA.
#pragma once

#include "../common/groups.h"
#include "../common/l1_threshold.h"
#include "../common/top_k.h"
#include "projections.h"

PR_NAMESPACE_BEGIN

// argmin ‖y − x‖₂ over y ≥ 0, Σ y = radius: y = (x − τ)₊.
struct ProjectSimplex {
  template <class Row>
  static PR_FN void run(Row& row, const ProjectionArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.x));
    const Level level = find_threshold(row, row.scalar(a.radius), false, [](C v) PR_LAMBDA { return v; });
    if (!level.valid) return write_nan(row, a.out);
    const Split<C> tau(level.tau);
    row.each([tau](C v, C& o) PR_LAMBDA { o = positive(tau.below(v)); }, row.out(a.out));
  }
};

// argmin ‖y − x‖₂ over ‖y‖₁ ≤ radius: y = sign(x) (|x| − τ)₊.
struct ProjectL1Ball {
  template <class Row>
  static PR_FN void run(Row& row, const ProjectionArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.x));
    const Level level = l1_threshold(row, row.scalar(a.radius));
    if (!level.valid) return write_nan(row, a.out);
    const Split<C> tau(level.tau);
    row.each([tau](C v, C& o) PR_LAMBDA { o = soft_threshold(v, tau); }, row.out(a.out));
  }
};

// argmin ‖y − x‖₂ over ‖y‖₂ ≤ radius: y = x min(1, radius / ‖x‖₂).
struct ProjectL2Ball {
  template <class Row>
  static PR_FN void run(Row& row, const ProjectionArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.x));
    const double radius = row.scalar(a.radius);
    const double norm = norm2(row, [](C v) PR_LAMBDA { return v; });
    if (!(radius >= 0) || !finite(norm)) return write_nan(row, a.out);
    const Factor<C> factor(norm <= radius ? 1 : radius / norm);
    row.each([factor](C v, C& o) PR_LAMBDA { o = factor(v); }, row.out(a.out));
  }
};

// argmin ‖y − x‖₂ over ‖y‖∞ ≤ radius: a clamp, element by element (±Inf becomes ±radius, NaN stays).
struct ProjectLinfBall {
  template <class Row>
  static PR_FN void run(Row& row, const ProjectionArgs& a) {
    using C = typename Row::Compute;
    const C radius = row.scalar(a.radius);
    if (!(radius >= C(0))) return write_nan(row, a.out);
    row.map([radius](C v, C& o) PR_LAMBDA { o = clamp(v, -radius, radius); }, row.in(a.x), row.out(a.out));
  }
};

// argmin ‖y − x‖₂ over at most k = radius non-zero groups: the k groups of the largest l2 norm, the first ones on ties.
struct ProjectL0Ball {
  template <class Row>
  static PR_FN void run(Row& row, const L0BallArgs& a) {
    using C = typename Row::Compute;
    const double k = row.scalar(a.radius);
    load_group_norms(row, a.x, a.channels);
    if (!(k >= 0) || !finite(row.max([](C v) PR_LAMBDA { return v; }))) {
      for (int64_t c = 0; c < a.channels; ++c)
        row.map([](C& o) PR_LAMBDA { o = not_a_number<C>(); }, row.out_plane(a.out, c, a.channels));
    } else if (k < 1) {
      write_groups(row, a.out, a.x, a.channels, [](C, int64_t) PR_LAMBDA { return false; });
    } else if (k >= double(row.size())) {
      write_groups(row, a.out, a.x, a.channels, [](C, int64_t) PR_LAMBDA { return true; });
    } else {
      const auto top = find_top_k(row, double(int64_t(k)));
      write_groups(row, a.out, a.x, a.channels, [top](C v, int64_t i) PR_LAMBDA { return top.keeps(v, i); });
    }
  }
};

// The kept z = x − center and the room in its direction before the box [low, high] binds.
template <class C>
PR_FN C room(C z, C center, C low, C high) {
  return z > C(0) ? high - center : center - low;
}

// τ for which Σ min((|z| − τ)₊, room) = radius, for the kept z; the sum falls with τ but is not convex, so Newton's
// steps are guarded by a bracket. Invalid: NaN or ±Inf in the row, or a negative or NaN radius.
template <class Row>
PR_SEARCH Level l1_box_threshold(Row& row, const void* center, double radius, double low_bound, double high_bound) {
  using C = typename Row::Compute;
  const C low_c = C(low_bound), high_c = C(high_bound);
  const C most = row.max([](C v) PR_LAMBDA { return v; });
  if (!(radius >= 0) || !finite(most)) return {0, false};
  double low = 0, high = most, tau = 0;
  for (int step = 0; step < 2 * kMostNewtonSteps; ++step) {
    const C level = C(tau);
    const Two<double> at = row.sum2(
        [level, low_c, high_c](C z, C x0) PR_LAMBDA {
          const C cap = room(z, x0, low_c, high_c), excess = absolute(z) - level;
          return Two<C>{clamp(excess, C(0), cap), excess > C(0) && excess < cap ? C(1) : C(0)};
        },
        row.in(center));
    const double surplus = at.first - radius;
    if (step == 0 && surplus <= 0) return {0, true};
    if (surplus > 0) {
      low = level;
    } else {
      high = level;
    }
    const double newton = at.second > 0 ? level + surplus / at.second : -1;
    tau = newton > low && newton < high ? newton : low + (high - low) / 2;
    // A level that has been tried already: its piece is linear down to the rounding of C.
    if (surplus == 0 || C(tau) == C(low) || C(tau) == C(high)) {
      if (newton >= low && newton <= high) tau = newton;
      break;
    }
  }
  return {tau, true};
}

// argmin ‖y − x‖₂ over ‖y − center‖₁ ≤ radius, low ≤ y ≤ high (center inside the box).
struct ProjectL1Box {
  template <class Row>
  static PR_FN void run(Row& row, const L1BoxArgs& a) {
    using C = typename Row::Compute;
    row.load([](C x, C x0) PR_LAMBDA { return x - x0; }, row.in(a.x), row.in(a.center));
    const Level level = l1_box_threshold(row, a.center, row.scalar(a.radius), a.low, a.high);
    if (!level.valid) return write_nan(row, a.out);
    const Split<C> tau(level.tau);
    const C low = C(a.low), high = C(a.high);
    row.each([tau, low, high](C z, C x0, C& o) PR_LAMBDA { o = clamp(x0 + soft_threshold(z, tau), low, high); },
             row.in(a.center), row.out(a.out));
  }
};

// The position of the largest kept magnitude `most`, the first one on ties.
template <class Row>
PR_SEARCH int64_t first_largest(Row& row, typename Row::Compute most) {
  using C = typename Row::Compute;
  int64_t low = 0, high = row.size() - 1;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const double before =
        row.sum([most, middle](C v, int64_t i) PR_LAMBDA { return absolute(v) == most && i <= middle ? C(1) : C(0); },
                position());
    if (before > 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// A nearest point of ‖y‖_p = radius to the kept values, written to `out`. Outside the ball it is the projection onto
// the ball. Inside: p = 2 scales up, p = 1 adds the missing sum in equal shares away from zero, p = ∞ moves the largest
// element (the first one on ties) to ±radius. A zero row, to which all directions are equally near, moves along its
// first element for p = 2.
template <class Row>
PR_SEARCH void write_sphere_projection(Row& row, void* out, double p, double radius) {
  using C = typename Row::Compute;
  if (!(radius >= 0) || !finite(row.max([](C v) PR_LAMBDA { return v; }))) return write_nan(row, out);
  if (p == 1) {
    const double sum = row.sum([](C v) PR_LAMBDA { return absolute(v); });
    if (sum > radius) {
      const Split<C> tau(l1_threshold(row, radius).tau);
      return row.each([tau](C v, C& o) PR_LAMBDA { o = soft_threshold(v, tau); }, row.out(out));
    }
    const C share = C((radius - sum) / double(row.size()));
    return row.each([share](C v, C& o) PR_LAMBDA { o = v + copy_sign(share, v); }, row.out(out));
  }
  if (p == 2) {
    const double norm = norm2(row, [](C v) PR_LAMBDA { return v; });
    const Factor<C> factor(norm > 0 ? radius / norm : 0);
    const C first = norm > 0 ? C(0) : C(radius);
    return row.each([factor, first](C v, int64_t i, C& o) PR_LAMBDA { o = factor(v) + (i == 0 ? first : C(0)); },
                    position(), row.out(out));
  }
  const C limit = C(radius), most = row.max([](C v) PR_LAMBDA { return v; });
  const int64_t moved = most < limit ? first_largest(row, most) : -1;
  row.each([limit, moved](C v, int64_t i, C& o)
               PR_LAMBDA { o = i == moved ? copy_sign(limit, v) : clamp(v, -limit, limit); },
           position(), row.out(out));
}

struct ProjectLpSphere {
  template <class Row>
  static PR_FN void run(Row& row, const SphereArgs& a) {
    row.load(row.in(a.x));
    write_sphere_projection(row, a.out, a.p, row.scalar(a.radius));
  }
};

PR_NAMESPACE_END
