// Declaration and definition of an op, for every level.
#pragma once

#include "types.h"

// Declares the launcher `name` of every level; bindings.cpp picks one at run time.
#define PR_DECLARE_OP(name, Args)                         \
  namespace pyrobust {                                    \
  namespace baseline {                                    \
  Status name(const Batch& batch, const Args& arguments); \
  }                                                       \
  namespace avx2 {                                        \
  Status name(const Batch& batch, const Args& arguments); \
  }                                                       \
  namespace avx512 {                                      \
  Status name(const Batch& batch, const Args& arguments); \
  }                                                       \
  namespace cuda {                                        \
  Status name(const Batch& batch, const Args& arguments); \
  }                                                       \
  namespace emulated {                                    \
  Status name(const Batch& batch, const Args& arguments); \
  }                                                       \
  }

// Defines the launcher `name` of the level being compiled, which runs Op on every row of the batch.
#define PR_DEFINE_ROW_OP(name, Op, Args)                                                               \
  PR_NAMESPACE_BEGIN                                                                                   \
  Status name(const Batch& batch, const Args& arguments) { return launch_rows<Op>(batch, arguments); } \
  PR_NAMESPACE_END
