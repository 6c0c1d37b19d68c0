// Two thread pools on the same cores fight: torch's workers spin for a while after each of its loops. So our loops run
// on torch's own pool. torch's wheels carry a private OpenMP runtime; linking OpenMP ourselves would load a second one.
// Instead the runtime that libtorch_cpu was linked to is looked up among the libraries already loaded, and its
// GOMP_parallel (the stable entry point that GCC compiles `#pragma omp parallel` to, exported by libgomp and by LLVM's
// libomp on Linux) is called. Where there is none, plain threads are started for the large loops.
#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <link.h>
#endif

namespace pyrobust {
namespace {

struct Runtime {
  void (*gomp_parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*team_size)() = nullptr;
  int (*in_parallel)() = nullptr;
  int (*max_threads)() = nullptr;
  int (*torch_threads)() = nullptr;  // at::get_num_threads
};

// OpenMP runtimes do not survive fork(): the child owns a pool whose threads are gone, and would wait for them forever.
std::atomic<bool> forked{false};

template <class F>
void resolve(void* handle, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(handle, name));
}

#if defined(__linux__)
int match_torch(dl_phdr_info* info, size_t, void* found) {
  if (info->dlpi_name == nullptr || std::strstr(info->dlpi_name, "libtorch_cpu.so") == nullptr) return 0;
  *static_cast<void**>(found) = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
  return 1;
}
#endif

Runtime find_runtime() {
  pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
  Runtime runtime;
#if defined(__linux__)
  void* torch = nullptr;
  dl_iterate_phdr(match_torch, &torch);
  if (torch == nullptr) return runtime;
  resolve(torch, "_ZN2at15get_num_threadsEv", runtime.torch_threads);
  resolve(torch, "GOMP_parallel", runtime.gomp_parallel);  // dlsym searches the libraries that torch was linked to
  resolve(torch, "omp_get_thread_num", runtime.thread_num);
  resolve(torch, "omp_get_num_threads", runtime.team_size);
  resolve(torch, "omp_in_parallel", runtime.in_parallel);
  resolve(torch, "omp_get_max_threads", runtime.max_threads);
  if (!runtime.thread_num || !runtime.team_size || !runtime.in_parallel) runtime.gomp_parallel = nullptr;
#endif
  return runtime;
}

const Runtime& runtime() {
  static const Runtime found = find_runtime();
  return found;
}

struct Job {
  int64_t n;
  int64_t parts;
  LoopBody body;
  void* context;

  void run(int64_t part) const { body(context, n * part / parts, n * (part + 1) / parts); }
};

void run_team_member(void* argument) {
  const Job& job = *static_cast<const Job*>(argument);
  // The runtime may give fewer threads than were asked for; the partition stays as it is.
  for (int64_t part = runtime().thread_num(); part < job.parts; part += runtime().team_size()) job.run(part);
}

}  // namespace

int parallel_threads() {
  const Runtime& found = runtime();
  if (forked.load(std::memory_order_relaxed)) return 1;
  if (found.in_parallel && found.in_parallel()) return 1;
  const int threads = found.torch_threads ? found.torch_threads() : (found.max_threads ? found.max_threads() : 1);
  return threads > 0 ? threads : 1;
}

const char* parallel_backend() {
  if (forked.load(std::memory_order_relaxed)) return "serial (after fork)";
  if (runtime().gomp_parallel) return "torch's OpenMP runtime";
  return runtime().torch_threads ? "std::thread" : "serial (torch's thread settings not found)";
}

void parallel_for(int64_t n, int64_t grain, LoopBody body, void* context) {
  if (n <= 0) return;
  const int64_t most = grain > 0 ? (n + grain - 1) / grain : n;
  const int64_t threads = most > 1 ? parallel_threads() : 1;
  const int64_t parts = most < threads ? most : threads;
  if (parts <= 1) return body(context, 0, n);
  const Job job{n, parts, body, context};
  if (runtime().gomp_parallel) {
    runtime().gomp_parallel(run_team_member, const_cast<Job*>(&job), static_cast<unsigned>(parts), 0);
    return;
  }
  std::vector<std::thread> team;
  team.reserve(static_cast<size_t>(parts - 1));
  for (int64_t part = 1; part < parts; ++part) team.emplace_back([&job, part] { job.run(part); });
  job.run(0);
  for (std::thread& member : team) member.join();
}

void* thread_scratch(int64_t bytes) {
  struct Scratch {
    void* memory = nullptr;
    int64_t size = 0;
    ~Scratch() { std::free(memory); }
  };
  thread_local Scratch scratch;
  if (scratch.size < bytes) {
    std::free(scratch.memory);
    scratch.size = (bytes + 63) / 64 * 64;
    scratch.memory = std::aligned_alloc(64, static_cast<size_t>(scratch.size));
    if (scratch.memory == nullptr) scratch.size = 0;
  }
  return scratch.memory;
}

}  // namespace pyrobust
