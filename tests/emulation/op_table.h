// Every op, with arguments: one line each, a second for another path through its code.
#pragma once

#include <iterator>

#include "arrays.h"
#include "ops/attack_steps.h"
#include "ops/norms.h"
#include "ops/projections.h"
#include "ops/proximal.h"
#include "ops/sampling.h"
#include "ops/spectral.h"
#include "ops/total_variation.h"

namespace test {

struct Op {
  const char* name;
  Status (*run)(Arrays& arrays, bool emulated);
};

#define OP(op, ...)                                                        \
  {#op, [](Arrays& a, bool emulate) {                                      \
     const auto arguments = __VA_ARGS__;                                   \
     return (emulate ? emulated::op : baseline::op)(a.batch(), arguments); \
   }}

constexpr int64_t kPlanes = 3;

inline SeedArgs seed_args(Arrays& a, const void* targets, void* best_class, int targeted) {
  return {a.output(),
          a.column_output(),
          a.x(),
          a.integers(false, a.cols()),
          targets,
          best_class,
          a.column_input(1),
          a.column_input(1.5),
          targeted,
          a.workspace()};
}
inline PgdArgs pgd_args(Arrays& a, double p, double sparsity) {
  return {a.output(), a.input(), a.x(), a.input(),    a.scalar(p == 1 ? 0.1 * a.cols() : 0.5), a.scalar(0.2), p,
          sparsity,   0,         1,     a.workspace()};
}
inline StepArgs step_args(Arrays& a, Prox prox, int64_t planes, int adaptive, double normalize) {
  return {a.inout(planes),
          a.moment(planes),
          a.moment(planes),
          a.inout(planes),
          a.column_inout(3),
          a.column_inout(1),
          a.column_inout(-0.5),
          a.column_inout(0.1),
          a.input(planes),
          a.x(planes),
          a.column_input(-1),
          planes,
          int(prox),
          adaptive,
          0.1,
          normalize,
          0.9,
          0.99,
          0.2,
          0.1,
          0.05,
          10,
          0.9,
          0.2,
          0,
          1,
          a.workspace()};
}
inline SigmaZeroArgs sigma_zero_args(Arrays& a, int64_t planes) {
  return {a.inout(planes),
          a.moment(planes),
          a.moment(planes),
          a.moment(planes),
          a.column_inout(0.2),
          a.column_output(),
          a.input(planes),
          a.x(planes),
          a.integers(false, 2),  // of whose bytes every eighth is not zero
          planes,
          0.3,
          0.01,
          0.05,
          0.9,
          0.99,
          0.2,
          0.1,
          0,
          1,
          a.workspace()};
}

// A divisor of the row's length, so that rows become matrices and images.
inline int64_t height_of(int64_t cols) {
  for (int64_t height : {8, 7, 3})
    if (cols % height == 0) return height;
  return 1;
}
inline TotalVariationArgs tv_args(Arrays& a, int isotropic) {
  const int64_t planes = a.cols() % 2 == 0 ? 2 : 1, size = a.cols() / planes, height = height_of(size),
                width = size / height;
  const DType dtype = a.batch().dtype;
  return {a.out(), a.x(),     a.scalar(0.3),
          height,  width,     17,
          1e-3,    isotropic, a.scratch(compute_type(dtype), planes * prox_tv_space(height, width, dtype))};
}
// Every row of x is a layer.
inline SpectralArgs spectral_args(Arrays& a) {
  const int64_t rows = height_of(a.cols()), cols = a.cols() / rows;
  const DType dtype = a.batch().dtype, wide = compute_type(dtype);
  auto* const weights = static_cast<char*>(a.x());
  auto* const us = static_cast<char*>(a.moment());
  auto* const layers = static_cast<SpectralLayer*>(a.scratch(DType::float64, sizeof(SpectralLayer) / 8));
  for (int64_t l = 0; l < a.batch().rows; ++l)
    layers[l] = {weights + l * a.cols() * size_of(dtype), us + l * a.cols() * size_of(wide), rows, cols};
  return {a.column_output(), a.moment(), layers, 2, 1e-12, a.scratch(wide, spectral_space(rows, cols))};
}

// Radii and weights are such that elements of size up to 1 meet both sides of every threshold.
inline const Op kOps[] = {
    OP(project_simplex, ProjectionArgs{a.out(), a.x(), a.scalar(0.1 * a.cols()), a.workspace()}),
    OP(project_l1_ball, ProjectionArgs{a.out(), a.x(), a.scalar(0.1 * a.cols()), a.workspace()}),
    OP(project_l2_ball, ProjectionArgs{a.out(), a.x(), a.scalar(0.5), a.workspace()}),
    OP(project_linf_ball, ProjectionArgs{a.out(), a.x(), a.scalar(0.5), a.workspace()}),
    OP(project_l0_ball, L0BallArgs{a.out(), a.x(), a.scalar(1 + a.cols() / 8), 1, a.workspace()}),
    OP(project_l0_ball, L0BallArgs{a.out(kPlanes), a.x(kPlanes), a.scalar(1 + a.cols() / 8), kPlanes, a.workspace()}),
    OP(project_l1_box, L1BoxArgs{a.out(), a.x(), a.input(), a.scalar(0.1 * a.cols()), 0, 1, a.workspace()}),
    OP(project_lp_sphere, SphereArgs{a.out(), a.x(), a.scalar(0.5), 1, a.workspace()}),
    OP(project_lp_sphere, SphereArgs{a.out(), a.x(), a.scalar(0.5), 2, a.workspace()}),
    OP(project_lp_sphere, SphereArgs{a.out(), a.x(), a.scalar(0.5), INFINITY, a.workspace()}),
    OP(prox_l0, ProxArgs{a.out(), a.x(), a.scalar(0.1), a.workspace()}),
    OP(prox_l1, ProxArgs{a.out(), a.x(), a.scalar(0.3), a.workspace()}),
    OP(prox_l2, ProxArgs{a.out(), a.x(), a.scalar(0.5), a.workspace()}),
    OP(prox_linf, ProxArgs{a.out(), a.x(), a.scalar(0.1 * a.cols()), a.workspace()}),
    OP(prox_l0_group, GroupProxArgs{a.out(kPlanes), a.x(kPlanes), a.scalar(0.2), kPlanes, 0, a.workspace()}),
    OP(prox_l0_group, GroupProxArgs{a.out(kPlanes), a.x(kPlanes), a.scalar(0.2), kPlanes, 1, a.workspace()}),
    OP(lp_norm, NormArgs{a.column_output(), a.x(kPlanes), 0, kPlanes, a.workspace()}),
    OP(lp_norm, NormArgs{a.column_output(), a.x(), 1, 1, a.workspace()}),
    OP(lp_norm, NormArgs{a.column_output(), a.x(), 2, 1, a.workspace()}),
    OP(lp_norm, NormArgs{a.column_output(), a.x(), INFINITY, 1, a.workspace()}),
    OP(dual_normalize, DualArgs{a.out(), a.x(), 1, a.workspace()}),
    OP(dual_normalize, DualArgs{a.out(), a.x(), 2, a.workspace()}),
    OP(dual_normalize, DualArgs{a.out(), a.x(), 3, a.workspace()}),
    OP(dual_normalize, DualArgs{a.out(), a.x(), INFINITY, a.workspace()}),
    OP(power_iteration_step,
       PowerStepArgs{a.out(), a.column_output(), a.column_output(), a.x(), nullptr, 3, INFINITY, a.workspace()}),
    OP(power_iteration_step,
       PowerStepArgs{a.out(), a.column_output(), a.column_output(), a.x(), a.input(), 2, INFINITY, a.workspace()}),
    OP(power_iteration_step,
       PowerStepArgs{a.output(), a.column_output(), a.column_output(), a.x(), a.input(), 2, 0.5, a.workspace()}),
    OP(sample_lp_ball, SampleArgs{a.output(), a.integers(false, 1 << 30), a.scalar(0.5), 5, 3, 1, a.workspace()}),
    OP(sample_lp_ball, SampleArgs{a.output(), a.integers(false, 1 << 30), a.scalar(0.5), 5, 3, 2, a.workspace()}),
    OP(sample_lp_ball,
       SampleArgs{a.output(), a.integers(false, 1 << 30), a.scalar(0.5), 5, 3, INFINITY, a.workspace()}),
    OP(attack_seed, seed_args(a, nullptr, nullptr, 0)),
    OP(attack_seed,
       [&] {
         void* const best_class = a.integers(true, a.cols());
         return seed_args(a, best_class, best_class, 0);
       }()),
    OP(attack_seed, seed_args(a, a.integers(false, a.cols()), nullptr, 1)),
    OP(pgd_step, pgd_args(a, 1, 0)),
    OP(pgd_step, pgd_args(a, 1, 0.25)),
    OP(pgd_step, pgd_args(a, 2, 0)),
    OP(pgd_step, pgd_args(a, INFINITY, 0)),
    OP(primal_dual_step, step_args(a, Prox::gradient_l2, 1, 1, 2)),
    OP(primal_dual_step, step_args(a, Prox::l2, 1, 1, 0)),
    OP(primal_dual_step, step_args(a, Prox::l1, 1, 1, INFINITY)),
    OP(primal_dual_step, step_args(a, Prox::linf, 1, 0, 1)),
    OP(primal_dual_step, step_args(a, Prox::linf, 1, 1, 1)),
    OP(primal_dual_step, step_args(a, Prox::l0, kPlanes, 1, INFINITY)),
    OP(sigma_zero_step, sigma_zero_args(a, 1)),
    OP(sigma_zero_step, sigma_zero_args(a, kPlanes)),
    OP(spectral_norm_step, spectral_args(a)),
    OP(prox_tv, tv_args(a, 0)),
    OP(prox_tv, tv_args(a, 1)),
};

#undef OP

}  // namespace test
