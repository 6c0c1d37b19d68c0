// The k largest of the kept magnitudes, by bisection on their bit patterns: a fixed number of counting passes over data
// that is on chip, without a sort.
#pragma once

#include "row_math.h"

PR_NAMESPACE_BEGIN

// What is kept: magnitudes above `level`, and those equal to it before position `end`.
template <class Bits>
struct TopK {
  Bits level;
  int64_t end;
  template <class C>
  PR_FN bool keeps(C magnitude, int64_t position) const {
    const Bits bits = magnitude_bits(magnitude);
    return bits > level || (bits == level && position < end);
  }
};

// The level of the k-th largest kept value (all must be >= 0, 1 <= k <= size). Ties at the level are all kept.
template <class Row, class Bits>
PR_SEARCH TopK<Bits> find_top_k_with_ties(Row& row, double k, Bits low, Bits high) {
  using C = typename Row::Compute;
  while (low < high) {  // the largest level that k values reach
    const Bits middle = low + (high - low + 1) / 2;
    const double reached = row.sum([middle](C v) PR_LAMBDA { return magnitude_bits(v) >= middle ? C(1) : C(0); });
    if (reached >= k) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return {low, row.size()};
}

// Exactly k values; of those that tie at the level the first in the row are kept.
template <class Row>
PR_SEARCH auto find_top_k(Row& row, double k) {
  using C = typename Row::Compute;
  using Bits = decltype(magnitude_bits(C(0)));
  const Bits most = magnitude_bits(row.max([](C v) PR_LAMBDA { return v; }));
  TopK<Bits> found = find_top_k_with_ties(row, k, Bits(0), most);
  const Bits level = found.level;
  const double above = row.sum([level](C v) PR_LAMBDA { return magnitude_bits(v) > level ? C(1) : C(0); });
  int64_t low = 0, high = row.size();
  while (low < high) {  // the first position before which enough of the ties lie
    const int64_t middle = low + (high - low) / 2;
    const double ties = row.sum([level, middle](C v, int64_t i)
                                    PR_LAMBDA { return magnitude_bits(v) == level && i < middle ? C(1) : C(0); },
                                position());
    if (above + ties >= k) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  found.end = low;
  return found;
}

PR_NAMESPACE_END
