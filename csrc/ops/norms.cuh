// Code of the norms, dual directions and power-iteration step, for the CPU and for CUDA.
#pragma once

#include "../common/dual.h"
#include "../common/groups.h"
#include "norms.h"
#include "projections.cuh"

PR_NAMESPACE_BEGIN

template <class Row>
PR_FN void write_value(Row& row, void* values, double value) {
  using C = typename Row::Compute;
  if (row.leader()) static_cast<C*>(values)[row.index()] = C(value);
}

struct LpNorm {
  template <class Row>
  static PR_FN void run(Row& row, const NormArgs& a) {
    using C = typename Row::Compute;
    if (a.p != 0) {
      row.load(row.in(a.x));
      return write_value(row, a.out, kept_norm(row, a.p));
    }
    load_group_maxima(row, a.x, a.channels);
    const double count = row.sum([](C v) PR_LAMBDA { return v > C(0) ? C(1) : (v == C(0) ? C(0) : v); });
    write_value(row, a.out, count);  // a NaN is added, not counted
  }
};

struct DualNormalize {
  template <class Row>
  static PR_FN void run(Row& row, const DualArgs& a) {
    using C = typename Row::Compute;
    if (a.p > 1e300)  // no row quantity is needed
      return row.map([](C v, C& o) PR_LAMBDA { o = signum(v); }, row.in(a.z), row.out(a.out));
    row.load(row.in(a.z));
    const bool defined = with_dual_direction(row, a.p, kept_norm(row, conjugate_exponent(a.p)), [&](auto direction) {
      row.each([direction](C v, C& o) PR_LAMBDA { o = direction(v); }, row.out(a.out));
    });
    if (!defined) write_nan(row, a.out);
  }
};

// One half of an iteration of seed 004, eq. 12: direction = dual(z), value = ‖z‖_p*, change = ‖direction − previous‖₂.
// With a finite alpha that of eq. 11: the projection of previous + alpha z onto the unit sphere of ‖·‖_p.
struct PowerIterationStep {
  template <class Row>
  static PR_FN void run(Row& row, const PowerStepArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.z));
    const double value = kept_norm(row, conjugate_exponent(a.p));
    write_value(row, a.value, value);
    if (!finite(value)) {
      write_value(row, a.change, not_a_number<double>());
      return write_nan(row, a.direction);
    }
    if (a.alpha > 1e300) {
      with_dual_direction(row, a.p, value, [&](auto direction) {
        if (a.previous == nullptr) {
          row.each([direction](C v, C& o) PR_LAMBDA { o = direction(v); }, row.out(a.direction));
          return write_value(row, a.change, not_a_number<double>());
        }
        const auto difference = [direction](C v, C before) PR_LAMBDA { return direction(v) - before; };
        write_value(row, a.change, norm2(row, difference, row.in(a.previous)));
        row.each([direction](C v, C& o) PR_LAMBDA { o = direction(v); }, row.out(a.direction));
      });
      return;
    }
    const C alpha = C(a.alpha);
    row.load([alpha](C z, C before) PR_LAMBDA { return before + alpha * z; }, row.in(a.z), row.in(a.previous));
    write_sphere_projection(row, a.direction, a.p, 1);
    row.load([](C now, C before) PR_LAMBDA { return now - before; }, row.in(a.direction), row.in(a.previous));
    write_value(row, a.change, norm2(row, [](C v) PR_LAMBDA { return v; }));
  }
};

PR_NAMESPACE_END
