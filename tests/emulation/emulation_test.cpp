// Runs every op under the emulated GPU and compares it with the CPU level.
//   emulation_test all|quick [OP]   exit status 1, and a line for each difference; quick: half of the cases, one order
//   emulation_test rows             more rows than a grid has blocks have to be refused
//   emulation_test fault NAME       plants a fault that a sanitizer, or the emulation itself, has to stop
#include <algorithm>
#include <chrono>

#include "faults.h"
#include "op_table.h"

namespace test {
namespace {

bool run(const Op& op, Arrays& arrays, bool emulated, bool backwards = false) {
  emulation::settings.backwards = backwards;
  const Status status = op.run(arrays, emulated);
  if (status.code != Code::ok) std::printf("FAILED %s: %s\n", op.name, status.message);
  return status.code == Code::ok;
}

bool run_case(const Op& op, const Case& c, bool quick, int missing = 0) {
  emulation::settings.max_cluster = c.max_cluster;
  Arrays expected(c, false), result(c, true, missing), reordered(c, true, missing);
  if (!run(op, expected, false) || !run(op, result, true)) return false;
  if (!result.agrees_with(expected, false, "the emulated result")) return false;
  return quick || (run(op, reordered, true, true) &&
                   reordered.agrees_with(result, true, "the result with the last thread first"));
}

// Awkward sizes, and those at which the launcher changes its ways: from one block to clusters of two and of four, and
// to rows that no team can hold.
int run_all(bool quick, const char* only) {
  int failures = 0, cases = 0;
  for (const Op& op : kOps) {
    if (only && std::strcmp(only, op.name) != 0) continue;
    const auto start = std::chrono::steady_clock::now();
    for (DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
      const int64_t block = emulated::max_shared_bytes(0) / size_of(compute_type(dtype));
      struct Size {
        int64_t rows, cols;
        int max_cluster;
      };
      const Size sizes[] = {{7, 1, 1},         {7, 31, 1},        {7, 32, 4},        {7, 33, 1},
                            {7, 99, 1},        {7, 127, 1},       {7, 129, 1},       {7, 151, 4},
                            {2, block, 1},     {7, block + 1, 1}, {2, block / 2, 4}, {7, block / 2 + 1, 4},
                            {2, block + 1, 2}, {7, 1000, 4},      {1, 4 * block, 4}, {2, 4 * block + 1, 4}};
      for (const Size& size : sizes) {
        for (bool awkward : {false, true}) {
          if (quick && awkward != ((&size - sizes + int(dtype)) % 2 > 0)) continue;
          ++cases;
          failures += !run_case(op, {op.name, dtype, size.rows, size.cols, size.max_cluster, awkward}, quick);
        }
      }
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%-24s %.2f s\n", op.name, seconds);
    std::fflush(stdout);
  }
  std::printf("%d cases, %d failed\n", cases, failures);
  return failures > 0 || cases == 0;
}

// More rows than there can be blocks are refused before anything is touched, not cut off by 2^32.
int run_rows_beyond_the_grid() {
  emulation::settings.max_cluster = 1;
  const Batch batch = {(int64_t(1) << 32) + 5, 1, DType::float32, 0, nullptr};
  const Status status = emulated::lp_norm(batch, NormArgs{});
  std::printf("%s\n", status.code == Code::invalid_argument ? status.message : "not refused");
  return status.code != Code::invalid_argument;
}

// A fault in a kernel of the package itself: a barrier that does nothing, or an output that is an element short.
bool run_faulty_op(const char* name) {
  struct Fault {
    const char* name;
    emulation::Scope scope;
    int turn, missing, max_cluster;
  };
  const Fault faults[] = {{"none:block", emulation::Scope::block, -1, 0, 1},
                          {"none:cluster", emulation::Scope::cluster, -1, 0, 2},
                          {"first-block-barrier", emulation::Scope::block, 0, 0, 1},
                          {"second-block-barrier", emulation::Scope::block, 1, 0, 1},
                          {"first-cluster-barrier", emulation::Scope::cluster, 0, 0, 2},
                          {"second-cluster-barrier", emulation::Scope::cluster, 1, 0, 2},
                          {"short-output", emulation::Scope::block, -1, 1, 1}};
  for (const Fault& fault : faults) {
    if (std::strcmp(name, fault.name) != 0) continue;
    emulation::settings.broken_scope = fault.scope;
    emulation::settings.broken_turn = fault.turn;
    const Op& op = *std::find_if(std::begin(kOps), std::end(kOps),
                                 [](const Op& o) { return std::strcmp(o.name, "project_l1_ball") == 0; });
    const int64_t cols = emulated::max_shared_bytes(0) / 4 * fault.max_cluster - 7;
    run_case(op, {op.name, DType::float32, 2, cols, fault.max_cluster, false}, true, fault.missing);
    return true;
  }
  return false;
}

}  // namespace
}  // namespace test

int main(int argc, char** argv) {
  const auto mode = [&](const char* name) { return argc > 1 && std::strcmp(argv[1], name) == 0; };
  if (mode("all") || mode("quick")) return test::run_all(mode("quick"), argc > 2 ? argv[2] : nullptr);
  if (mode("rows")) return test::run_rows_beyond_the_grid();
  if (mode("fault") && argc > 2 && (test::run_faulty_op(argv[2]) || test::run_faulty_kernel(argv[2]))) return 0;
  std::fprintf(stderr, "usage: emulation_test all|quick [OP] | rows | fault NAME\n");
  return 2;
}
