// What one op source needs to be compiled four ways: by nvcc, for the CPU at several instruction-set levels, and for
// the host with an emulated GPU (tests). PR_LEVEL names the namespace of the translation unit; code that could be
// emitted out of line must live in it.
#pragma once

#if defined(__CUDACC__)
#define PR_FN __device__ __forceinline__
#define PR_HOST_FN __host__ __device__ inline
#define PR_SCALAR inline __device__ __noinline__  // long scalar functions: one copy a kernel
#define PR_SEARCH __device__ __forceinline__
#define PR_LAMBDA
#define PR_LEVEL cuda
#elif defined(PR_EMULATE_CUDA)
#define PR_FN inline
#define PR_HOST_FN inline
#define PR_SCALAR inline
#define PR_SEARCH inline
#define PR_LAMBDA
#define PR_LEVEL emulated
#else
#define PR_FN inline __attribute__((always_inline))
#define PR_SCALAR inline __attribute__((always_inline))
#define PR_SEARCH inline  // long functions of a whole row, that several ops of a file may share
#define PR_LAMBDA __attribute__((always_inline))
#ifndef PR_LEVEL
#define PR_LEVEL baseline
#endif
#endif

#if defined(__AVX512F__)
#define PR_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define PR_VECTOR_BYTES 32
#else
#define PR_VECTOR_BYTES 16
#endif

#define PR_NAMESPACE_BEGIN \
  namespace pyrobust {     \
  namespace PR_LEVEL {
#define PR_NAMESPACE_END \
  }                      \
  }
