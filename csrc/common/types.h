// The vocabulary shared by every launcher: plain data only, so that each translation unit may be compiled for
// another instruction set without two versions of one inline function meeting in the linker.
#pragma once

#include <cstdint>

namespace pyrobust {

// A launcher never prints, exits or throws: it returns a Status; bindings.cpp alone turns it into an exception.
enum class Code : int { ok = 0, invalid_argument, cuda_error, not_built };

struct Status {
  Code code = Code::ok;
  const char* message = "";
};

enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

// The batch that one launch works on: `rows` rows of `cols` contiguous elements. device < 0 is the CPU.
struct Batch {
  int64_t rows;
  int64_t cols;
  DType dtype;
  int device;
  void* stream;
};

// A value for every row: one number for all of them, or a device array with one entry a row, float64 for float64
// storage and float32 for every other.
struct RowScalar {
  double value = 0;
  const void* values = nullptr;
};

// 16-bit storage types, as bits; numeric.h converts them.
struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// Arithmetic is done in float32 at least.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using compute_t = typename ComputeOf<T>::type;

}  // namespace pyrobust
