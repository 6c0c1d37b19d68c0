// Scalar arithmetic that reads the same on the CPU and on the GPU, branch-free so that CPU loops vectorise.
#pragma once

#include "platform.h"
#include "types.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

PR_NAMESPACE_BEGIN

// clang-format off
PR_FN float absolute(float x) { return __builtin_fabsf(x); }
PR_FN double absolute(double x) { return __builtin_fabs(x); }
PR_FN float square_root(float x) { return __builtin_sqrtf(x); }
PR_FN double square_root(double x) { return __builtin_sqrt(x); }
PR_FN float copy_sign(float magnitude, float sign) { return __builtin_copysignf(magnitude, sign); }
PR_FN double copy_sign(double magnitude, double sign) { return __builtin_copysign(magnitude, sign); }
PR_SCALAR float power(float x, float y) { return __builtin_powf(x, y); }
PR_SCALAR double power(double x, double y) { return __builtin_pow(x, y); }
PR_SCALAR float logarithm(float x) { return __builtin_logf(x); }
PR_SCALAR double logarithm(double x) { return __builtin_log(x); }
PR_SCALAR float exponential(float x) { return __builtin_expf(x); }
PR_SCALAR double exponential(double x) { return __builtin_exp(x); }
PR_SCALAR float cosine(float x) { return __builtin_cosf(x); }
PR_SCALAR double cosine(double x) { return __builtin_cos(x); }
// clang-format on

// The first argument wins where the comparison is false, so a NaN in `x` survives clamp() and a NaN bound is ignored.
template <class T>
PR_FN T smaller(T x, T bound) {
  return bound < x ? bound : x;
}
template <class T>
PR_FN T larger(T x, T bound) {
  return bound > x ? bound : x;
}
template <class T>
PR_FN T clamp(T x, T low, T high) {
  return smaller(larger(x, low), high);
}
// (x)₊, keeping NaN.
template <class T>
PR_FN T positive(T x) {
  return x < T(0) ? T(0) : x;
}
// sign(x) with sign(0) = 0, keeping NaN.
template <class T>
PR_FN T signum(T x) {
  return x > T(0) ? T(1) : (x < T(0) ? T(-1) : x);
}
template <class T>
PR_FN bool finite(T x) {
  return absolute(x) <= (sizeof(T) == 4 ? T(3.402823466e38f) : T(1.7976931348623157e308));
}

template <class To, class From>
PR_FN To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// |x| as an integer that orders like |x|, with NaN above infinity: an exact, NaN-propagating maximum without
// floating-point comparisons, which compilers may not vectorise.
PR_FN int32_t magnitude_bits(float x) { return bit_cast<int32_t>(x) & 0x7fffffff; }
PR_FN int64_t magnitude_bits(double x) { return bit_cast<int64_t>(x) & 0x7fffffffffffffff; }
PR_FN float from_magnitude(int32_t bits) { return bit_cast<float>(bits); }
PR_FN double from_magnitude(int64_t bits) { return bit_cast<double>(bits); }

// The largest number below a finite x.
template <class T>
PR_FN T next_below(T x) {
  const T magnitude = from_magnitude(magnitude_bits(x) + (x > T(0) ? -1 : 1));
  return x > T(0) ? magnitude : -magnitude;
}

PR_FN float to_compute(float x) { return x; }
PR_FN double to_compute(double x) { return x; }

PR_FN float to_compute(bfloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

PR_FN float to_compute(float16 x) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(x.bits));
#else
  // Rebias the exponent by a multiplication, which also normalises subnormals; Inf and NaN keep their payload.
  const uint32_t magnitude = x.bits & 0x7fffu;
  const float scaled = bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | special | (static_cast<uint32_t>(x.bits & 0x8000u) << 16));
#endif
}

template <class T>
struct FromCompute;

template <>
struct FromCompute<float> {
  PR_FN static float of(float x) { return x; }
};
template <>
struct FromCompute<double> {
  PR_FN static double of(double x) { return x; }
};
template <>
struct FromCompute<bfloat16> {
  PR_FN static bfloat16 of(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    const uint32_t nan = (bits >> 16) | 0x40u;
    return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded)};
  }
};
template <>
struct FromCompute<float16> {
  PR_FN static float16 of(float x) {
#if defined(__CUDACC__)
    return {__half_as_ushort(__float2half_rn(x))};
#else
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t magnitude = bits & 0x7fffffffu;
    // Subnormal results: adding 0.5 aligns the mantissa so that the addition itself rounds to nearest even.
    const uint32_t tiny = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t half = magnitude >= 0x477ff000u ? large : (magnitude < 0x38800000u ? tiny : normal);
    return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u))};
#endif
  }
};

PR_NAMESPACE_END
