// The Python module pyrobust._native: one line an op. Addresses come as integers; pyrobust/ops checks every argument.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "build_info.h"
#include "common/parallel.h"
#include "ops/attack_steps.h"
#include "ops/norms.h"
#include "ops/projections.h"
#include "ops/proximal.h"
#include "ops/sampling.h"
#include "ops/spectral.h"
#include "ops/total_variation.h"

#if defined(PYROBUST_CUDA)
#include "common/cuda_info.h"
#else
namespace pyrobust {
std::string cuda_problem(int) { return "built without CUDA"; }
bool outgrows_chip(const Batch&) { return false; }
}  // namespace pyrobust
#endif

namespace py = pybind11;

namespace pyrobust {

// An address, given as an integer; 0 is null.
struct Address {
  uintptr_t value = 0;
  operator void*() const { return reinterpret_cast<void*>(value); }
  operator const void*() const { return reinterpret_cast<const void*>(value); }
};

namespace {

template <class Args>
using Launcher = Status (*)(const Batch&, const Args&);

template <class Args>
struct Backends {
  Launcher<Args> cpu[3];
  Launcher<Args> cuda;
};

enum Level { kBaseline, kAvx2, kAvx512 };
constexpr const char* kLevelNames[] = {"baseline", "avx2", "avx512"};

// The best level that this build has and this processor runs; PYROBUST_CPU_LEVEL lowers it.
Level find_level() {
  Level best = kBaseline;
#if defined(PYROBUST_X86_LEVELS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("bmi");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  best = avx512 ? kAvx512 : avx2 ? kAvx2 : kBaseline;
#endif
  const char* wanted = std::getenv("PYROBUST_CPU_LEVEL");
  if (wanted == nullptr || *wanted == 0) return best;
  for (int level = kBaseline; level <= kAvx512; ++level) {
    if (std::strcmp(wanted, kLevelNames[level]) != 0) continue;
    if (level > best)
      throw py::import_error(std::string("PYROBUST_CPU_LEVEL=") + wanted +
                             ": the best level that this machine and build run is " + kLevelNames[best]);
    return static_cast<Level>(level);
  }
  throw py::import_error(std::string("PYROBUST_CPU_LEVEL: expected baseline, avx2 or avx512, got ") + wanted);
}

Level level() {
  static const Level found = find_level();
  return found;
}

void check(const Status& status, const char* op) {
  if (status.code == Code::ok) return;
  const std::string message = std::string("pyrobust.") + op + ": " + status.message;
  if (status.code == Code::invalid_argument) throw py::value_error(message);
  throw std::runtime_error(message);
}

template <class Args, class... Fields>
void define(py::module_& module, const char* name, Backends<Args> backends) {
  module.def(name,
             [name, backends](int64_t rows, int64_t cols, int dtype, int device, Address stream, Fields... fields) {
               const Batch batch{rows, cols, static_cast<DType>(dtype), device, stream};
               const Args arguments{fields...};
               const Launcher<Args> run = device < 0 ? backends.cpu[level()] : backends.cuda;
               Status status{Code::not_built, "this build has no CUDA kernels (see `pyrobust info`)"};
               if (run != nullptr) {
                 const py::gil_scoped_release release;
                 status = run(batch, arguments);
               }
               check(status, name);
             });
}

#if defined(PYROBUST_X86_LEVELS)
#define PR_CPU_LEVELS(op) {baseline::op, avx2::op, avx512::op}
#else
#define PR_CPU_LEVELS(op) {baseline::op, nullptr, nullptr}
#endif
#if defined(PYROBUST_CUDA)
#define PR_BACKENDS(op) {PR_CPU_LEVELS(op), cuda::op}
#else
#define PR_BACKENDS(op) {PR_CPU_LEVELS(op), nullptr}
#endif
#define PR_OP(Args, op, ...) define<Args, __VA_ARGS__>(module, #op, PR_BACKENDS(op))

py::dict info() {
  py::dict facts;
  facts["compiler"] = kCompiler;
  facts["cpu_level"] = kLevelNames[level()];
  facts["threads"] = parallel_threads();
  facts["threads_run_by"] = parallel_backend();
  facts["cuda_built"] = kCudaBuilt;
  facts["cuda_note"] = kCudaNote;
  facts["cuda_architectures"] = kCudaArchitectures;
  facts["cuda_toolkit"] = kCudaToolkit;
#if defined(PYROBUST_CUDA)
  facts["cuda_devices"] = cuda_devices();
#else
  facts["cuda_devices"] = py::list();
#endif
  return facts;
}

}  // namespace
}  // namespace pyrobust

namespace pybind11::detail {

template <>
struct type_caster<pyrobust::Address> {
  PYBIND11_TYPE_CASTER(pyrobust::Address, const_name("int"));
  bool load(handle source, bool) {
    value.value = PyLong_AsUnsignedLongLong(source.ptr());
    if (PyErr_Occurred()) {
      PyErr_Clear();
      return false;
    }
    return true;
  }
};

// A float is the value of every row; an int is the address of one value a row.
template <>
struct type_caster<pyrobust::RowScalar> {
  PYBIND11_TYPE_CASTER(pyrobust::RowScalar, const_name("float | int"));
  bool load(handle source, bool) {
    if (PyFloat_Check(source.ptr())) {
      value.value = PyFloat_AS_DOUBLE(source.ptr());
      return true;
    }
    make_caster<pyrobust::Address> address;
    if (!address.load(source, false)) return false;
    value.values = cast_op<pyrobust::Address&>(address);
    return true;
  }
};

}  // namespace pybind11::detail

PYBIND11_MODULE(_native, module) {
  using namespace pyrobust;
  // Apart from info(), which asks the driver: a process that did so cannot fork workers that use a GPU.
  module.attr("cuda_built") = kCudaBuilt;
  module.def("info", info);
  module.def("cuda_problem", cuda_problem);
  module.def("outgrows_chip", [](int64_t rows, int64_t cols, int dtype, int device) {
    return outgrows_chip({rows, cols, static_cast<DType>(dtype), device, nullptr});
  });
  module.def("spectral_space", spectral_space);
  module.def("prox_tv_space", [](int64_t height, int64_t width, int dtype) {
    return prox_tv_space(height, width, static_cast<DType>(dtype));
  });
  module.def("level", [] { return kLevelNames[level()]; });
  level();  // an unusable PYROBUST_CPU_LEVEL is an error of the import

  using A = Address;
  using S = RowScalar;
  using I = int64_t;
  using D = double;
  PR_OP(ProjectionArgs, project_simplex, A, A, S, A);
  PR_OP(ProjectionArgs, project_l1_ball, A, A, S, A);
  PR_OP(ProjectionArgs, project_l2_ball, A, A, S, A);
  PR_OP(ProjectionArgs, project_linf_ball, A, A, S, A);
  PR_OP(L0BallArgs, project_l0_ball, A, A, S, I, A);
  PR_OP(L1BoxArgs, project_l1_box, A, A, A, S, D, D, A);
  PR_OP(SphereArgs, project_lp_sphere, A, A, S, D, A);
  PR_OP(ProxArgs, prox_l0, A, A, S, A);
  PR_OP(ProxArgs, prox_l1, A, A, S, A);
  PR_OP(ProxArgs, prox_l2, A, A, S, A);
  PR_OP(ProxArgs, prox_linf, A, A, S, A);
  PR_OP(GroupProxArgs, prox_l0_group, A, A, S, I, int, A);
  PR_OP(TotalVariationArgs, prox_tv, A, A, S, I, I, I, D, int, A);
  PR_OP(NormArgs, lp_norm, A, A, D, I, A);
  PR_OP(DualArgs, dual_normalize, A, A, D, A);
  PR_OP(PowerStepArgs, power_iteration_step, A, A, A, A, A, D, D, A);
  PR_OP(SpectralArgs, spectral_norm_step, A, A, A, I, D, A);
  PR_OP(SampleArgs, sample_lp_ball, A, A, S, I, I, D, A);
  PR_OP(SeedArgs, attack_seed, A, A, A, A, A, A, A, A, int, A);
  PR_OP(PgdArgs, pgd_step, A, A, A, A, S, S, D, D, D, D, A);
  PR_OP(StepArgs, primal_dual_step, A, A, A, A, A, A, A, A, A, A, A, I, int, int, D, D, D, D, D, D, D, D, D, D, D, D,
        A);
  PR_OP(SigmaZeroArgs, sigma_zero_step, A, A, A, A, A, A, A, A, A, I, D, D, D, D, D, D, D, D, D, A);
}
