// Code of the proximal operators, for the CPU and for CUDA.
#pragma once

#include "../common/groups.h"
#include "../common/l1_threshold.h"
#include "proximal.h"

PR_NAMESPACE_BEGIN

// λ‖·‖₀: keeps x iff |x| > √(2λ).
struct ProxL0 {
  template <class Row>
  static PR_FN void run(Row& row, const ProxArgs& a) {
    using C = typename Row::Compute;
    const C weight = row.scalar(a.weight);
    if (!(weight >= C(0))) return write_nan(row, a.out);
    const C threshold = C(square_root(2 * double(weight)));
    row.map([threshold](C v, C& o) PR_LAMBDA { o = absolute(v) <= threshold ? C(0) : v; }, row.in(a.x), row.out(a.out));
  }
};

// λ‖·‖₁: sign(x) (|x| − λ)₊.
struct ProxL1 {
  template <class Row>
  static PR_FN void run(Row& row, const ProxArgs& a) {
    using C = typename Row::Compute;
    const C weight = row.scalar(a.weight);
    if (!(weight >= C(0))) return write_nan(row, a.out);
    row.map([weight](C v, C& o) PR_LAMBDA { o = copy_sign(positive(absolute(v) - weight), v); }, row.in(a.x),
            row.out(a.out));
  }
};

// λ‖·‖₂: (1 − λ / ‖x‖₂)₊ x.
struct ProxL2 {
  template <class Row>
  static PR_FN void run(Row& row, const ProxArgs& a) {
    using C = typename Row::Compute;
    const double weight = row.scalar(a.weight);
    row.load(row.in(a.x));
    const double norm = norm2(row, [](C v) PR_LAMBDA { return v; });
    if (!(weight >= 0) || !finite(norm)) return write_nan(row, a.out);
    const C factor = norm > weight ? C((norm - weight) / norm) : C(0);
    row.each([factor](C v, C& o) PR_LAMBDA { o = v * factor; }, row.out(a.out));
  }
};

// λ‖·‖∞, by Moreau: x − Π_{‖·‖₁ ≤ λ}(x), which is a clamp at the threshold of that projection.
struct ProxLinf {
  template <class Row>
  static PR_FN void run(Row& row, const ProxArgs& a) {
    using C = typename Row::Compute;
    row.load(row.in(a.x));
    const Level level = l1_threshold(row, row.scalar(a.weight));
    if (!level.valid) return write_nan(row, a.out);
    const C tau = C(level.tau);
    row.each([tau](C v, C& o) PR_LAMBDA { o = clamp(v, -tau, tau); }, row.out(a.out));
  }
};

// λ‖·‖₀,G: keeps a group iff its l2 norm (by_max: its largest magnitude) is above √(2λ).
struct ProxL0Group {
  template <class Row>
  static PR_FN void run(Row& row, const GroupProxArgs& a) {
    using C = typename Row::Compute;
    const C weight = row.scalar(a.weight);
    const C threshold = weight >= C(0) ? C(square_root(2 * double(weight))) : not_a_number<C>();
    if (a.by_max) {
      load_group_maxima(row, a.x, a.channels);
    } else {
      load_group_norms(row, a.x, a.channels);
    }
    if (weight >= C(0)) {
      write_groups(row, a.out, a.x, a.channels, [threshold](C v, int64_t) PR_LAMBDA { return !(v <= threshold); });
    } else {
      for (int64_t c = 0; c < a.channels; ++c)
        row.map([threshold](C& o) PR_LAMBDA { o = threshold; }, row.out_plane(a.out, c, a.channels));
    }
  }
};

PR_NAMESPACE_END
