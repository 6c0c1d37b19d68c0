// The Hölder-dual direction of a row, argmax ⟨v, z⟩ over ‖v‖_p ≤ 1 (seed 004, eq. 16 and Lemma 1), and its value
// ‖z‖_p*.
#pragma once

#include "row_math.h"

PR_NAMESPACE_BEGIN

template <class C>
struct SignDirection {
  PR_FN C operator()(C v) const { return signum(v); }
};
template <class C>
struct ScaledDirection {
  Factor<C> factor;
  PR_FN C operator()(C v) const { return factor(v); }
};
template <class C>
struct LargestDirection {
  C most, share;
  PR_FN C operator()(C v) const { return absolute(v) == most ? copy_sign(share, v) : C(0); }
};
template <class C>
struct PowerDirection {
  C most, factor, exponent;
  PR_FN C operator()(C v) const {
    return v == C(0) ? C(0) : copy_sign(factor * power(absolute(v) / most, exponent), v);
  }
};

PR_FN double conjugate_exponent(double p) {
  if (p == 1) return infinity<double>();
  return p > 1e300 ? 1 : p / (p - 1);
}

// ‖kept‖_p. NaN where the row has one, infinity where it has ±Inf.
template <class Row>
PR_SEARCH double kept_norm(Row& row, double p) {
  using C = typename Row::Compute;
  const auto itself = [](C v) PR_LAMBDA { return v; };
  if (p == 2) return norm2(row, itself);
  const C most = row.max(itself);
  if (p > 1e300 || !(most > C(0)) || !finite(most)) return most;
  if (p == 1) {
    const double sum = row.sum([](C v) PR_LAMBDA { return absolute(v); });
    if (finite(sum)) return sum;
    return double(most) * row.sum([most](C v) PR_LAMBDA { return absolute(v) / most; });
  }
  const C exponent = C(p);
  const double sum = row.sum([most, exponent](C v) PR_LAMBDA { return power(absolute(v) / most, exponent); });
  return double(most) * power(sum, 1 / p);
}

// Calls use(direction) with the dual direction of the kept values; a zero row has the zero direction. Returns false,
// without a call, for a row with NaN or ±Inf.
template <class Row, class Use>
PR_FN bool with_dual_direction(Row& row, double p, double dual_norm, Use use) {
  using C = typename Row::Compute;
  if (!finite(dual_norm)) return false;
  if (p > 1e300) {
    use(SignDirection<C>{});
  } else if (p == 2) {
    use(ScaledDirection<C>{Factor<C>(dual_norm > 0 ? 1 / dual_norm : 0)});
  } else if (p == 1) {
    const C most = C(dual_norm);
    const double ties = row.sum([most](C v) PR_LAMBDA { return absolute(v) == most ? C(1) : C(0); });
    use(LargestDirection<C>{most, most > C(0) ? C(1 / ties) : C(0)});
  } else {
    const double q = conjugate_exponent(p);
    const C most = row.max([](C v) PR_LAMBDA { return v; });
    // |z|^(q−1) / ‖z‖_q^(q−1) with both sides divided by the largest magnitude, so that nothing overflows.
    const C factor = dual_norm > 0 ? C(power(double(most) / dual_norm, q - 1)) : C(0);
    use(PowerDirection<C>{most, factor, C(q - 1)});
  }
  return true;
}

PR_NAMESPACE_END
