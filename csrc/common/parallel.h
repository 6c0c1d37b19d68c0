// Runs a loop on the threads that torch is set to use (parallel.cpp says how).
#pragma once

#include <cstdint>

namespace pyrobust {

using LoopBody = void (*)(void* context, int64_t begin, int64_t end);

// Calls body(context, begin, end) over a partition of [0, n) into one contiguous range a thread, each of at least
// `grain` iterations; returns when all are done.
void parallel_for(int64_t n, int64_t grain, LoopBody body, void* context);

// Threads that a large loop would use now, and what runs them ("torch's OpenMP runtime", "std::thread", …).
int parallel_threads();
const char* parallel_backend();

// Scratch memory of the calling thread, at least `bytes` long, 64-byte aligned, reused by the next call.
void* thread_scratch(int64_t bytes);

}  // namespace pyrobust
