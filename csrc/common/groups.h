// Groups: a row of `channels` planes, in which the elements at one position of every plane belong together (a pixel).
#pragma once

#include "row_math.h"

PR_NAMESPACE_BEGIN

// √(a² + b²) for a, b ≥ 0 without overflow or underflow of the squares.
template <class C>
PR_FN C hypotenuse(C a, C b) {
  const C big = from_magnitude(larger(magnitude_bits(a), magnitude_bits(b))), small = smaller(a, b);  // NaN wins
  const C ratio = big > C(0) ? small / big : C(0);
  return big * square_root(C(1) + ratio * ratio);
}

// Keeps the l2 norm of each group.
template <class Row>
PR_SEARCH void load_group_norms(Row& row, const void* x, int64_t channels) {
  using C = typename Row::Compute;
  row.load([](C v) PR_LAMBDA { return absolute(v); }, row.in_plane(x, 0, channels));
  for (int64_t c = 1; c < channels; ++c)
    row.update([](C kept, C v) PR_LAMBDA { return hypotenuse(kept, absolute(v)); }, row.in_plane(x, c, channels));
}

// Keeps the largest magnitude of each group.
template <class Row>
PR_SEARCH void load_group_maxima(Row& row, const void* x, int64_t channels) {
  using C = typename Row::Compute;
  row.load([](C v) PR_LAMBDA { return absolute(v); }, row.in_plane(x, 0, channels));
  for (int64_t c = 1; c < channels; ++c) {
    row.update([](C kept, C v) PR_LAMBDA { return from_magnitude(larger(magnitude_bits(kept), magnitude_bits(v))); },
               row.in_plane(x, c, channels));
  }
}

// Writes the groups for which keep(kept, position) holds, and zeros elsewhere.
template <class Row, class Keep>
PR_FN void write_groups(Row& row, void* out, const void* x, int64_t channels, Keep keep) {
  using C = typename Row::Compute;
  for (int64_t c = 0; c < channels; ++c) {
    row.each([keep](C kept, C v, int64_t i, C& o) PR_LAMBDA { o = keep(kept, i) ? v : C(0); },
             row.in_plane(x, c, channels), position(), row.out_plane(out, c, channels));
  }
}

PR_NAMESPACE_END
