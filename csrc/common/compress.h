// Stream compaction on the CPU: the one loop of the projections that compilers cannot vectorise by themselves.
#pragma once

#include "numeric.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

PR_NAMESPACE_BEGIN

constexpr int kVectorBytes = PR_VECTOR_BYTES;

// Writes the |v| that are not <= level (NaN is kept) to `to`, in order, and zeros up to a multiple of 16; returns that
// multiple. `to` holds n + 32 values.
template <class C>
PR_FN int64_t compress_above(const C* from, int64_t n, C level, C* to) {
  int64_t count = 0, i = 0;
  if constexpr (sizeof(C) == 4) {
#if defined(__AVX512F__)
    const __m512 limit = _mm512_set1_ps(level);
    for (; i + 16 <= n; i += 16) {
      const __m512 v = _mm512_abs_ps(_mm512_loadu_ps(from + i));
      const __mmask16 above = _mm512_cmp_ps_mask(v, limit, _CMP_NLE_UQ);
      _mm512_storeu_ps(to + count, _mm512_maskz_compress_ps(above, v));  // a masked store is microcoded on some CPUs
      count += __builtin_popcount(above);
    }
#elif defined(__AVX2__)
    const __m256 limit = _mm256_set1_ps(level), sign = _mm256_set1_ps(-0.0f);
    for (; i + 8 <= n; i += 8) {
      const __m256 v = _mm256_andnot_ps(sign, _mm256_loadu_ps(from + i));
      const unsigned above = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(v, limit, _CMP_NLE_UQ)));
      // Spread the mask to one byte a lane and pack the wanted lane numbers together.
      const uint64_t lanes = _pext_u64(0x0706050403020100u, _pdep_u64(above, 0x0101010101010101u) * 0xffu);
      const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(lanes)));
      _mm256_storeu_ps(to + count, _mm256_permutevar8x32_ps(v, order));
      count += __builtin_popcount(above);
    }
#endif
  }
  for (; i < n; ++i) {
    const C v = absolute(from[i]);
    to[count] = v;
    count += !(v <= level);
  }
  for (int j = 0; j < 16; ++j) to[count + j] = 0;
  return (count + 15) / 16 * 16;
}

PR_NAMESPACE_END
