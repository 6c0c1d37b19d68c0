// Fibers, barriers and shuffles. Compiled without -fsanitize=thread, so that passing through here orders nothing:
// ThreadSanitizer learns of the fibers and of the barriers from the calls below, which are null where it is not linked.
#include "cuda_emulation.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
}

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

Settings settings;

namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kNoSync = 1;  // __tsan_switch_to_fiber_no_sync

// Where threads wait for each other. Turns alternate between two clocks and two sets of slots: a thread that is a turn
// ahead must not pass its later accesses, or values, to one that has yet to leave.
struct Meeting {
  int arrived = 0;
  unsigned turn = 0;
  const char* what = nullptr;
  unsigned mask = 0;
  char clock[2];
  uint64_t slots[2][32];
};

struct Block {
  unsigned index;
  int rank;
  std::vector<Meeting> warps;
  Meeting barrier, cluster_barrier;  // the latter of rank 0 is used
  std::vector<char*> shared;
};

struct Fiber {
  ucontext_t context;  // of its start
  bool started = false;
  void* place[5];  // where it goes on
  void* tsan = nullptr;
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  size_t stack_size = 0;
  int number = 0;  // in its team
  unsigned thread = 0;
  Block* block = nullptr;
  const Meeting* waits_for = nullptr;
  unsigned turn = 0;
  bool done = true;
  int barriers[3] = {};  // passed, by scope
};

struct Grid {
  int threads, cluster;
  void (*body)(void*);
  void* argument;
  char begun, ended;  // clocks of the launch
};

size_t shared_bytes[256];
int shared_count = 1;
std::map<const void*, int64_t> allowed_shared;  // dynamic, by kernel

// Of all kernels together: no less than one kernel has.
int64_t static_shared() {
  int64_t bytes = 0;
  for (int id = 1; id < shared_count; ++id) bytes += int64_t(shared_bytes[id]);
  return bytes;
}

Fiber host;                                  // main() and what it calls
std::vector<std::unique_ptr<Fiber>> fibers;  // a pool
int team = 0;                                // how many of them run
Fiber* running = &host;
Fiber* previous = nullptr;
Grid* grid = nullptr;
std::vector<Block> blocks;
Block* cluster_begin = nullptr;

void release(void* clock) {
  if (__tsan_release) __tsan_release(clock);
}
void acquire(void* clock) {
  if (__tsan_acquire) __tsan_acquire(clock);
}

[[noreturn]] void fail(const char* message) {
  const Meeting* waits = nullptr;
  int waiting = 0, exited = 0;
  for (int i = 0; i < team; ++i) {
    if (fibers[i]->done) ++exited;
    if (!fibers[i]->done && fibers[i]->waits_for) ++waiting, waits = fibers[i]->waits_for;
  }
  std::fprintf(stderr,
               "CUDA emulation: %s (block %u, thread %u; %d of %d threads wait, the last in %s, %d have exited)\n",
               message, blockIdx.x, threadIdx.x, waiting, team, waits ? waits->what : "nothing", exited);
  std::abort();
}

// Neither swapcontext, which makes a system call, nor longjmp: the sanitizers' wrappers wipe the red zones of the
// stack.
__attribute__((noinline)) void resume(Fiber& fiber) {
  using SetContext = int (*)(const ucontext_t*);
  static const SetContext set_context =
      reinterpret_cast<SetContext>(dlsym(dlopen("libc.so.6", RTLD_LAZY), "setcontext"));
  if (fiber.started) __builtin_longjmp(fiber.place, 1);
  fiber.started = true;
  set_context(&fiber.context);
}

void arrive() {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(running->fake_stack, &previous->stack, &previous->stack_size);
  if (!running->block) return;
  threadIdx = {running->thread};
  blockIdx = {running->block->index};
}

void switch_to(Fiber& to) {
  if (&to == running) return;
  previous = running;
  running = &to;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to.tsan, kNoSync);
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&previous->fake_stack, to.stack, to.stack_size);
  if (__builtin_setjmp(previous->place) == 0) resume(to);
  arrive();
}

// Lets the next thread run that can; the host when all are done.
void yield() {
  bool all_done = true;
  for (int step = 1; step <= team; ++step) {
    Fiber& next = *fibers[(running->number + (settings.backwards ? team - step : step)) % team];
    if (!next.done && (!next.waits_for || next.waits_for->turn != next.turn)) return switch_to(next);
    all_done = all_done && next.done;
  }
  if (!all_done) fail("threads wait for others that will not come");
  switch_to(host);
}

void fiber_main() {
  arrive();
  for (;;) {
    acquire(&grid->begun);
    grid->body(grid->argument);
    release(&grid->ended);
    running->done = true;
    yield();
  }
}

void add_fiber() {
  auto fiber = std::make_unique<Fiber>();
  constexpr size_t kGuard = 4096;
  void* memory = mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) fail("no memory for a stack");
  char* const stack = static_cast<char*>(memory) + kGuard;
  fiber->stack = stack;
  fiber->stack_size = kStackBytes;
  getcontext(&fiber->context);
  fiber->context.uc_stack = {stack, 0, kStackBytes};
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, fiber_main, 0);
  if (__tsan_create_fiber) fiber->tsan = __tsan_create_fiber(0);
  fibers.push_back(std::move(fiber));
}

// Waits until `expected` threads are here; returns which turn it was.
unsigned meet(Meeting& meeting, int expected, unsigned mask, const char* what, bool orders_memory) {
  const unsigned turn = meeting.turn;
  if (meeting.arrived > 0 && (std::strcmp(meeting.what, what) != 0 || meeting.mask != mask))
    fail("threads meet in different calls, or with different masks");
  meeting.what = what;
  meeting.mask = mask;
  if (orders_memory) release(&meeting.clock[turn % 2]);
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.turn;
  } else {
    running->waits_for = &meeting;
    running->turn = turn;
    yield();
    running->waits_for = nullptr;
  }
  if (orders_memory) acquire(&meeting.clock[turn % 2]);
  return turn;
}

Meeting& own_warp(unsigned mask) {
  const unsigned lane = running->thread % 32, first = running->thread - lane;
  if (!(mask >> lane & 1)) fail("the calling lane is not in the mask");
  if (first + 31 - unsigned(__builtin_clz(mask)) >= blockDim.x) fail("the mask names a lane that does not exist");
  return running->block->warps[running->thread / 32];
}

}  // namespace

void barrier(Scope scope, unsigned mask) {
  const int turn = running->barriers[int(scope)]++ % 2;
  if (scope == settings.broken_scope && turn == settings.broken_turn) return;
  if (scope == Scope::block) meet(running->block->barrier, int(blockDim.x), 0, "__syncthreads", true);
  if (scope == Scope::cluster) meet(cluster_begin->cluster_barrier, team, 0, "cluster_barrier", true);
  if (scope == Scope::warp) meet(own_warp(mask), __builtin_popcount(mask), mask, "__syncwarp", true);
}

uint64_t shuffle(unsigned mask, uint64_t bits, int source_lane) {
  Meeting& warp = own_warp(mask);
  if (!(mask >> source_lane & 1)) fail("a shuffle reads from a lane that is not in the mask");
  warp.slots[warp.turn % 2][running->thread % 32] = bits;
  const unsigned turn = meet(warp, __builtin_popcount(mask), mask, "a shuffle", false);
  return warp.slots[turn % 2][source_lane];
}

int declare_shared(size_t bytes) {
  if (shared_count == 256) fail("too many shared arrays");
  shared_bytes[shared_count] = bytes;
  return shared_count++;
}

void allow_shared(const void* kernel, int64_t bytes) {
  if (bytes + static_shared() > settings.max_shared) fail("more shared memory asked for than a block may have");
  allowed_shared[kernel] = bytes;
}

void check_shared(const void* kernel, int64_t bytes) {
  const auto found = allowed_shared.find(kernel);
  const int64_t allowed = found == allowed_shared.end() ? kUnaskedShared - static_shared() : found->second;
  if (bytes > allowed) fail("a launch with more shared memory than the kernel was allowed");
}

void* shared_array(int id) { return running->block->shared[id]; }

void* in_block(void* shared, int rank) {
  for (int id = 0; id < shared_count; ++id) {
    const ptrdiff_t offset = static_cast<char*>(shared) - running->block->shared[id];
    if (offset >= 0 && size_t(offset) < shared_bytes[id]) return cluster_begin[rank].shared[id] + offset;
  }
  fail("not an address of shared memory");
}

int cluster_blocks() { return grid->cluster; }
int cluster_rank() { return running->block->rank; }

void run_grid(int64_t count, int threads, int cluster, int64_t shared, void (*body)(void*), void* argument) {
  if (running != &host || threads <= 0 || cluster <= 0 || count % cluster) fail("a launch that no GPU would take");
  host.started = true;
  if (__tsan_get_current_fiber) host.tsan = __tsan_get_current_fiber();
  team = threads * cluster;
  shared_bytes[0] = size_t(shared);
  while (int(fibers.size()) < team) add_fiber();
  Grid launched{threads, cluster, body, argument, 0, 0};
  grid = &launched;
  blockDim = {unsigned(threads)};
  gridDim = {unsigned(count)};
  // Shared memory of all blocks at once: memory that is used again would need an order between blocks.
  blocks.assign(size_t(count), {});
  for (Block& block : blocks) {
    block.index = unsigned(&block - blocks.data());
    block.rank = int(block.index) % cluster;
    block.warps.resize(size_t(threads + 31) / 32);
    for (int id = 0; id < shared_count; ++id) {
      block.shared.push_back(static_cast<char*>(std::malloc(shared_bytes[id])));
      std::memset(block.shared[id], 0xff, shared_bytes[id]);  // NaN
    }
  }
  release(&launched.begun);
  for (int64_t first = 0; first < count; first += cluster) {
    cluster_begin = &blocks[size_t(first)];
    for (int i = 0; i < team; ++i) {
      Fiber& fiber = *fibers[i];
      fiber.number = i;
      fiber.thread = unsigned(i % threads);
      fiber.block = cluster_begin + i / threads;
      fiber.done = false;
      for (int& passed : fiber.barriers) passed = 0;
    }
    switch_to(*fibers[settings.backwards ? team - 1 : 0]);
  }
  acquire(&launched.ended);
  for (Block& block : blocks) {
    for (char* memory : block.shared) std::free(memory);
  }
  grid = nullptr;
}

}  // namespace emulation
