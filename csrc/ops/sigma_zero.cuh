// Code of the step of σ-zero, for the CPU and for CUDA.
//
// Per row, with the perturbation δ in units of the box width, groups g over the planes, D of them, and τ the threshold:
//   τ       ← clamp(τ ± threshold_step)            (+ where the point just predicted was adversarial)
//   h       ← width · grad + 2σ/D · δ / (‖δ_g‖² + σ)²,  h ← h / ‖h‖∞
//   m, v    ← Adam's moments
//   δ       ← box(δ − step_size · m̂ / (√v̂ + 1e-8)), then 0 in the groups with max |δ_g| ≤ τ
//   adv     ← inputs + width · δ, distance the groups in which it differs from the inputs
// (Cinà et al. 2025, algorithm 1.) The fewest bytes: read grad, inputs, δ and the moments, write adv, δ and the
// moments.
#pragma once

#include "../common/groups.h"
#include "attack_steps.cuh"

PR_NAMESPACE_BEGIN

struct SigmaZeroStep {
  template <class Row>
  static PR_FN void run(Row& row, const SigmaZeroArgs& a) {
    using C = typename Row::Compute;
    const C before = row_value<Row, const C>(row, a.threshold);
    const C change = row_value<Row, const uint8_t>(row, a.adversarial) ? C(a.threshold_step) : -C(a.threshold_step);
    const C tau = clamp(before + change, C(0), C(1));

    keep_pull(row, a);
    advance(row, a, Factor<C>(1 / double(larger(largest_slope(row, a), C(1e-12)))));
    const C low = C(a.low), high = C(a.high), width = C(a.high - a.low);
    keep_maxima(row, a);
    for (int64_t c = 0; c < a.channels; ++c) {
      row.each(
          [=](C most, C x, C& d, C& adv) PR_LAMBDA {
            d = most <= tau ? C(0) : d;
            adv = clamp(x + d * width, low, high);
          },
          row.in_plane(a.inputs, c, a.channels), row.wide_inout_plane(a.delta, c, a.channels),
          row.out_plane(a.adv, c, a.channels));
    }
    const C distance = count_changed(row, a);
    row.sync();  // every thread has read the threshold before the leader replaces it
    if (row.leader()) {
      row_value<Row, C>(row, a.threshold) = tau;
      row_value<Row, C>(row, a.distance) = distance;
    }
  }

 private:
  template <class Row>
  static PR_FN In<typename Row::Compute> delta(const Row& row, const SigmaZeroArgs& a, int64_t c) {
    return {row.wide_inout_plane(a.delta, c, a.channels).data};
  }

  // Keeps 2σ/D / (‖δ_g‖² + σ)², by which δ_g is multiplied in the gradient of the penalty.
  template <class Row>
  static PR_FN void keep_pull(Row& row, const SigmaZeroArgs& a) {
    using C = typename Row::Compute;
    row.load([](C d) PR_LAMBDA { return d * d; }, delta(row, a, 0));
    for (int64_t c = 1; c < a.channels; ++c)
      row.update([](C kept, C d) PR_LAMBDA { return kept + d * d; }, delta(row, a, c));
    const C sigma = C(a.sigma), weight = C(2 * a.sigma / double(row.size()));
    row.update([sigma, weight](C kept) PR_LAMBDA {
      const C energy = kept + sigma;
      return weight / (energy * energy);
    });
  }

  // ‖h‖∞ before h is divided by it; NaN where it has one.
  template <class Row>
  static PR_FN typename Row::Compute largest_slope(Row& row, const SigmaZeroArgs& a) {
    using C = typename Row::Compute;
    const C width = C(a.high - a.low);
    auto most = magnitude_bits(C(0));
    for (int64_t c = 0; c < a.channels; ++c) {
      const C here = row.max([width](C pull, C g, C d) PR_LAMBDA { return g * width + d * pull; },
                             row.in_plane(a.grad, c, a.channels), delta(row, a, c));
      most = larger(most, magnitude_bits(here));
    }
    return from_magnitude(most);
  }

  // Adam's step inside the box.
  template <class Row>
  static PR_FN void advance(Row& row, const SigmaZeroArgs& a, Factor<typename Row::Compute> scale) {
    using C = typename Row::Compute;
    const C beta1 = C(a.beta1), beta2 = C(a.beta2), rest1 = C(1 - a.beta1), rest2 = C(1 - a.beta2);
    const C size = C(a.step_size / a.correction1), correction = C(1 / a.correction2);
    const C low = C(a.low), high = C(a.high), width = C(a.high - a.low), inverse_width = C(1 / (a.high - a.low));
    for (int64_t c = 0; c < a.channels; ++c) {
      row.each(
          [=](C pull, C g, C x, C& d, C& m, C& v) PR_LAMBDA {
            const C slope = scale(g * width + d * pull);
            m = beta1 * m + rest1 * slope;
            v = beta2 * v + rest2 * slope * slope;
            const C moved = d - size * m / (square_root(v * correction) + C(1e-8));
            d = clamp(moved, (low - x) * inverse_width, (high - x) * inverse_width);
          },
          row.in_plane(a.grad, c, a.channels), row.in_plane(a.inputs, c, a.channels),
          row.wide_inout_plane(a.delta, c, a.channels), row.wide_inout_plane(a.exp_avg, c, a.channels),
          row.wide_inout_plane(a.exp_avg_sq, c, a.channels));
    }
  }

  // Keeps max |δ_g|; NaN where it has one.
  template <class Row>
  static PR_FN void keep_maxima(Row& row, const SigmaZeroArgs& a) {
    using C = typename Row::Compute;
    row.load([](C d) PR_LAMBDA { return absolute(d); }, delta(row, a, 0));
    for (int64_t c = 1; c < a.channels; ++c) {
      row.update([](C kept, C d) PR_LAMBDA { return from_magnitude(larger(magnitude_bits(kept), magnitude_bits(d))); },
                 delta(row, a, c));
    }
  }

  // The groups in which the point that was written differs from the inputs; NaN where it has one.
  template <class Row>
  static PR_FN typename Row::Compute count_changed(Row& row, const SigmaZeroArgs& a) {
    using C = typename Row::Compute;
    row.load([](C adv, C x) PR_LAMBDA { return absolute(adv - x); }, row.in_plane(a.adv, 0, a.channels),
             row.in_plane(a.inputs, 0, a.channels));
    for (int64_t c = 1; c < a.channels; ++c) {
      row.update([](C kept, C adv, C x) PR_LAMBDA { return kept + absolute(adv - x); },
                 row.in_plane(a.adv, c, a.channels), row.in_plane(a.inputs, c, a.channels));
    }
    return C(row.sum([](C moved) PR_LAMBDA { return moved > C(0) ? C(1) : moved; }));
  }
};

PR_NAMESPACE_END
