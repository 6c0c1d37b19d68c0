// The arguments of one launch: each array a heap object of its exact size, so that AddressSanitizer guards both ends,
// and the comparison of two launches that were given the same values.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "common/cuda_row.cuh"

namespace test {

using namespace pyrobust;

struct Case {
  const char* op;
  DType dtype;
  int64_t rows, cols;
  int max_cluster;
  // Plain: vectors aligned, out of place, one radius for all. Awkward: a base that is not a multiple of 16 bytes, in
  // place, one radius a row.
  bool awkward;
};

inline const char* name_of(DType dtype) {
  constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16"};
  return names[int(dtype)];
}
inline DType compute_type(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }
inline int64_t size_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

template <class T>
double load_as(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return double(emulated::to_compute(value));
}
template <class T>
void store_as(void* at, double value) {
  const T stored = emulated::FromCompute<T>::of(compute_t<T>(value));
  std::memcpy(at, &stored, sizeof stored);
}
inline double load(DType dtype, const void* at) {
  constexpr double (*loads[])(const void*) = {load_as<float>, load_as<double>, load_as<float16>, load_as<bfloat16>};
  return loads[int(dtype)](at);
}
inline void store(DType dtype, void* at, double value) {
  constexpr void (*stores[])(void*, double) = {store_as<float>, store_as<double>, store_as<float16>,
                                               store_as<bfloat16>};
  stores[int(dtype)](at, value);
}

struct Array {
  enum Kind { input, inout, output, scratch } kind;
  DType dtype;
  int64_t row_size;
  std::unique_ptr<char[]> memory;
  char* data;
  int64_t bytes;
};

class Arrays {
 public:
  Arrays(const Case& c, bool emulated, int missing = 0)
      : case_(c), batch_{c.rows, c.cols, c.dtype, emulated ? 0 : -1, nullptr}, missing_(missing) {}

  const Batch& batch() const { return batch_; }
  int64_t cols() const { return case_.cols; }

  // The argument that an in-place call overwrites, and the result that overwrites it.
  void* x(int64_t planes = 1) {
    if (x_ < 0) {
      x_ = int(arrays_.size());
      const Array& array =
          fill(add(case_.awkward ? Array::inout : Array::input, case_.dtype, planes * case_.cols), true, true);
      for (int64_t r = 0; r < case_.rows; ++r) scale_.push_back(largest(array, r));
    }
    return arrays_[size_t(x_)].data;
  }
  void* out(int64_t planes = 1) {
    return case_.awkward ? x(planes) : add(Array::output, case_.dtype, planes * case_.cols).data;
  }

  // Further arguments: wide arrays are in the compute dtype, as state is; columns have one value a row.
  void* input(int64_t planes = 1) { return fill(add(Array::input, case_.dtype, planes * case_.cols)).data; }
  void* inout(int64_t planes = 1) { return fill(add(Array::inout, case_.dtype, planes * case_.cols)).data; }
  void* moment(int64_t planes = 1) { return fill(add(Array::inout, wide(), planes * case_.cols)).data; }
  void* output() { return add(Array::output, case_.dtype, case_.cols).data; }
  void* column_input(double value) { return column(Array::input, value); }
  void* column_output() { return add(Array::output, wide(), 1).data; }
  void* column_inout(double value) { return column(Array::inout, value); }
  void* integers(bool written, int64_t modulus) {
    Array& array = add(written ? Array::inout : Array::input, DType::float64, 1);
    for (int64_t r = 0; r < case_.rows; ++r) {
      const int64_t value = (1000003 * r + 7) % modulus;
      std::memcpy(array.data + 8 * r, &value, sizeof value);
    }
    return array.data;
  }
  RowScalar scalar(double value) {
    if (case_.awkward) return {0, column(Array::input, value)};
    return {value, nullptr};
  }
  // The CPU level has no use for it, and neither has a row that stays on chip.
  void* workspace() {
    const bool outgrows = case_.dtype == DType::float64   ? outgrows_chip<double>()
                          : case_.dtype == DType::float32 ? outgrows_chip<float>()
                                                          : outgrows_chip<float16>();
    if (batch_.device < 0 || !outgrows) return nullptr;
    return add(Array::scratch, wide(), case_.cols).data;
  }

  // What a launcher is given beside its arguments, and no comparison sees.
  void* scratch(DType dtype, int64_t row_size) { return add(Array::scratch, dtype, row_size).data; }

  // Reports the first difference from what `reference` computed; `exactly` asks for the same bits.
  bool agrees_with(const Arrays& reference, bool exactly, const char* what) const {
    for (size_t a = 0, b = 0; a < arrays_.size(); ++a) {
      if (arrays_[a].kind == Array::scratch) continue;
      while (reference.arrays_[b].kind == Array::scratch) ++b;
      if (!agrees(arrays_[a], reference.arrays_[b++], exactly, what, int(a))) return false;
    }
    return true;
  }

 private:
  template <class T>
  bool outgrows_chip() const {
    return emulated::team_shape<T>(case_.cols, 0).shared == 0;
  }

  DType wide() const { return compute_type(case_.dtype); }

  Array& add(Array::Kind kind, DType dtype, int64_t row_size) {
    const int64_t offset = case_.awkward ? size_of(dtype) : 0;
    const int64_t bytes = (case_.rows * row_size - (kind == Array::input ? 0 : missing_)) * size_of(dtype);
    Array array{kind, dtype, row_size, std::make_unique<char[]>(size_t(offset + bytes)), nullptr, bytes};
    array.data = array.memory.get() + offset;
    std::memset(array.data, 0xa5, size_t(bytes));
    arrays_.push_back(std::move(array));
    return arrays_.back();
  }

  void* column(Array::Kind kind, double value) {
    Array& array = add(kind, wide(), 1);
    for (int64_t r = 0; r < case_.rows; ++r)
      store(array.dtype, array.data + r * size_of(array.dtype), value * (1 + 0.25 * r));
    return array.data;
  }

  // Rows in turn: scattered values, NaN in one place, ties, zeros, Inf in one place, large and small values. Only the
  // first argument is so varied; what else an op reads is scattered over (0, 1), where box centres and second moments
  // lie.
  Array& fill(Array& array, bool varied = false, bool both_signs = false) {
    uint64_t state = 0x9e3779b97f4a7c15u * (arrays_.size() + 1) + uint64_t(case_.cols);
    for (int64_t r = 0; r < case_.rows; ++r) {
      const int kind = varied ? int(r % 7) : 0;
      for (int64_t i = 0; i < array.row_size; ++i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        double value = double(state >> 11) * 0x1p-53;
        if (both_signs) value = 2 * value - 1;
        const bool chosen = i == array.row_size * 2 / 3;
        if (kind == 1 && chosen) value = std::nan("");
        if (kind == 2) value = std::round(4 * value) / 4;
        if (kind == 3) value = 0;
        if (kind == 4 && chosen) value = -INFINITY;
        if (kind == 5) value *= 3e4;
        if (kind == 6) value *= 1e-6;
        store(array.dtype, array.data + (r * array.row_size + i) * size_of(array.dtype), value);
      }
    }
    return array;
  }

  static double largest(const Array& array, int64_t row) {
    double most = 0;
    for (int64_t i = 0; i < array.row_size; ++i) {
      const double value = load(array.dtype, array.data + (row * array.row_size + i) * size_of(array.dtype));
      if (std::isfinite(value)) most = std::max(most, std::fabs(value));
    }
    return most;
  }

  // Two levels add in different orders. A chain of m additions in the compute precision u is off by m·u of the sum of
  // magnitudes at most, chains are no longer than 256 before float64 takes over, and thresholds and norms move no more
  // than the largest value by the same share. Rounding to 16 bits may then fall to either side: one unit in the last
  // place.
  static double tolerance(const Array& array, double scale, double value) {
    const double compute = array.dtype == DType::float64 ? 0x1p-53 : 0x1p-24;
    const double last_place = array.dtype == DType::float16 ? 0x1p-10 : array.dtype == DType::bfloat16 ? 0x1p-7 : 0;
    const double least = array.dtype == DType::float16 ? 0x1p-24 : 0;  // where float16 is subnormal
    return 256 * compute * scale + last_place * std::fabs(value) + least;
  }

  bool agrees(const Array& mine, const Array& other, bool exactly, const char* what, int number) const {
    const int64_t size = size_of(mine.dtype);
    if (std::memcmp(mine.data, other.data, size_t(mine.bytes)) == 0) return true;
    for (int64_t r = 0; r < case_.rows; ++r) {
      const double scale = std::max(largest(other, r), scale_.empty() ? 0 : scale_[size_t(r)]);
      for (int64_t i = 0; i < mine.row_size; ++i) {
        const int64_t at = (r * mine.row_size + i) * size;
        if (std::memcmp(mine.data + at, other.data + at, size_t(size)) == 0) continue;
        const double a = load(mine.dtype, mine.data + at), b = load(mine.dtype, other.data + at);
        const bool close = (std::isnan(a) && std::isnan(b)) || a == b || std::fabs(a - b) <= tolerance(mine, scale, b);
        if (close && !exactly && mine.kind != Array::input) continue;
        std::printf(
            "FAILED %s %s %lldx%lld cluster %d %s: array %d, row %lld, column %lld: %s is %.9g, expected %.9g\n",
            case_.op, name_of(case_.dtype), (long long)case_.rows, (long long)case_.cols, case_.max_cluster,
            case_.awkward ? "awkward" : "plain", number, (long long)r, (long long)i, what, a, b);
        return false;
      }
    }
    return true;
  }

  Case case_;
  Batch batch_;
  int missing_;
  int x_ = -1;
  std::vector<double> scale_;  // the largest magnitude in each row of x, before the call
  std::vector<Array> arrays_;
};

}  // namespace test
