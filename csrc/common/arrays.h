// How a row pass names the arrays it streams: in(p) is read, out(p) written, inout(p) both, position() is the element's
// index in its row. A pass fetches one element (CPU) or one pack (GPU) of each, runs the body on registers, and commits
// what is written; so a body is written once, on scalars.
#pragma once

#include "numeric.h"

PR_NAMESPACE_BEGIN

template <class T>
struct In {
  static constexpr bool reads = true, writes = false;
  const T* data;
};
template <class T>
struct Out {
  static constexpr bool reads = false, writes = true;
  T* data;
};
template <class T>
struct InOut {
  static constexpr bool reads = true, writes = true;
  T* data;
};
struct Position {};

template <class T>
PR_FN In<T> in(const void* row) {
  return {static_cast<const T*>(row)};
}
template <class T>
PR_FN Out<T> out(void* row) {
  return {static_cast<T*>(row)};
}
template <class T>
PR_FN InOut<T> inout(void* row) {
  return {static_cast<T*>(row)};
}
PR_FN Position position() { return {}; }

// A pair of sums made in one pass.
template <class T>
struct Two {
  T first, second;
};

// A largest value and its place in the row.
template <class T>
struct Most {
  T value;
  int64_t place;
};

PR_NAMESPACE_END
