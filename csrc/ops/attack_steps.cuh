// Code of the loss seed and of the projected gradient step, for the CPU and for CUDA.
#pragma once

#include "../common/dual.h"
#include "attack_steps.h"
#include "projections.cuh"

PR_NAMESPACE_BEGIN

template <class Row, class V>
PR_FN V& row_value(const Row& row, const void* values) {
  return static_cast<V*>(const_cast<void*>(values))[row.index()];
}

// margin = z_y − max_{i ≠ y} z_i (targeted: its negative), surrogate = [margin ≥ 0] (z_y − z_t) with t the target
// class: a hinge that stops pushing once any error is reached (seed 003, eq. 5.2 and 5.3, corrected). seed is its
// gradient.
struct AttackSeed {
  template <class Row>
  static PR_FN void run(Row& row, const SeedArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.logits));
    const int64_t label = row_value<Row, const int64_t>(row, a.labels);
    const C at_label = C(row.sum(  // NaN where any logit is, for the maximum below passes over it
        [label](C z, int64_t i) PR_LAMBDA { return i == label || !(z == z) ? z : C(0); }, position()));
    const auto other =
        row.most([label](C z, int64_t i) PR_LAMBDA { return i == label ? -infinity<C>() : z; }, position());
    const C top = other.value;
    const C margin = a.targeted ? top - at_label : at_label - top;
    const bool found = margin < C(0);
    const bool better =
        found && row_value<Row, const C>(row, a.distance) < row_value<Row, const C>(row, a.best_distance);
    int64_t best_class = a.best_class ? row_value<Row, const int64_t>(row, a.best_class) : 0;
    if (better) best_class = other.place;
    int64_t target = other.place;
    if (a.targets != nullptr)
      target = a.targets == a.best_class ? best_class : row_value<Row, const int64_t>(row, a.targets);
    const C up = found ? C(0) : (a.targeted ? C(-1) : C(1));  // NaN margins push on
    row.map([up, label, target](int64_t i, C& s)
                PR_LAMBDA { s = (i == label ? up : C(0)) - (i == target ? up : C(0)); },
            position(), row.out(a.seed));
    row.sync();  // every thread has read the class before the leader replaces it
    if (row.leader()) {
      row_value<Row, C>(row, a.margin) = margin;
      if (a.best_class) row_value<Row, int64_t>(row, a.best_class) = best_class;
    }
  }
};

// adv + step in the dual direction of the gradient, projected onto the ball around the inputs and the box. For l2 the
// ball comes first: the clamp then only shortens the perturbation. For l1 the projection onto the intersection is
// exact.
struct PgdStep {
  template <class Row>
  static PR_FN void run(Row& row, const PgdArgs& a) {
    using C = typename Row::Compute;
    const C eps = row.scalar(a.eps), step = row.scalar(a.step_size), low = C(a.low), high = C(a.high);
    if (!(eps >= C(0) && step >= C(0))) return write_nan(row, a.out);
    if (a.p > 1e300) {  // no row quantity is needed
      return row.map(
          [=](C g, C adv, C x, C& o) PR_LAMBDA {
            const C moved = clamp(adv + step * signum(g), x - eps, x + eps);
            o = clamp(moved, low, high);
          },
          row.in(a.grad), row.in(a.adv), row.in(a.inputs), row.out(a.out));
    }
    row.load(row.in(a.grad));
    if (a.p == 2) {
      const double norm = kept_norm(row, 2);
      if (!finite(norm)) return write_nan(row, a.out);
      const Factor<C> length(norm > 0 ? double(step) / norm : 0);
      row.load([length](C g, C adv, C x) PR_LAMBDA { return adv + length(g) - x; }, row.in(a.grad), row.in(a.adv),
               row.in(a.inputs));
      const double size = kept_norm(row, 2);
      const C factor = size > double(eps) ? C(double(eps) / size) : C(1);
      return row.each([=](C r, C x, C& o) PR_LAMBDA { o = clamp(x + r * factor, low, high); }, row.in(a.inputs),
                      row.out(a.out));
    }
    const C most = row.max([](C g) PR_LAMBDA { return g; });
    if (!finite(most)) return write_nan(row, a.out);
    C level = most;
    if (a.sparsity > 0 && most > C(0)) {
      const double k = larger(1.0, double(int64_t(a.sparsity * double(row.size()) + 0.5)));
      row.load([](C g) PR_LAMBDA { return absolute(g); }, row.in(a.grad));
      level =
          from_magnitude(find_top_k_with_ties(row, k, decltype(magnitude_bits(C(0)))(1), magnitude_bits(most)).level);
    }
    const double moving = row.sum([level](C g) PR_LAMBDA { return absolute(g) >= level ? C(1) : C(0); });
    const C length = most > C(0) ? C(double(step) / moving) : C(0);
    row.load([=](C g, C adv, C x) PR_LAMBDA { return adv + (absolute(g) >= level ? copy_sign(length, g) : C(0)) - x; },
             row.in(a.grad), row.in(a.adv), row.in(a.inputs));
    const Level found = l1_box_threshold(row, a.inputs, eps, a.low, a.high);
    if (!found.valid) return write_nan(row, a.out);
    const Split<C> tau(found.tau);
    row.each([=](C r, C x, C& o) PR_LAMBDA { o = clamp(x + soft_threshold(r, tau), low, high); }, row.in(a.inputs),
             row.out(a.out));
  }
};

PR_NAMESPACE_END
