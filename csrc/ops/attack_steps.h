// Fused attack steps: everything an attack does between the model's backward pass and its next forward pass, in one
// launch.
#pragma once

#include "../common/row_op.h"

namespace pyrobust {

// Logits to what the backward pass starts from. batch.cols is the number of classes.
struct SeedArgs {
  void* seed;    // like logits: the gradient of the surrogate with respect to the logits
  void* margin;  // one value a row, compute dtype: > 0 while the label still wins (its negative when targeted)
  const void* logits;
  const void* labels;    // int64 a row
  const void* targets;   // int64 a row: the class to push towards; null: the runner-up. May be best_class itself
  void* best_class;      // int64 a row, or null: follows the class of the best adversarial point
  const void* distance;  // as in StepArgs
  const void* best_distance;
  int targeted;
  void* workspace;
};

// Projected gradient step.
struct PgdArgs {
  void* out;
  const void* adv;
  const void* grad;
  const void* inputs;
  RowScalar eps;
  RowScalar step_size;
  double p;         // 1, 2 or infinity
  double sparsity;  // p = 1: the share of the elements that move; 0: the largest alone
  double low, high;
  void* workspace;
};

enum class Prox : int { gradient_l2 = 0, l2 = 1, l1 = 2, linf = 3, l0 = 4 };

// Primal-dual (proximal) gradient step. Batch.cols is a plane: a row is `channels` planes (1 unless pixels are
// grouped).
struct StepArgs {
  void* adv;      // in: the point just predicted; out: the next one
  void* exp_avg;  // compute dtype, like adv
  void* exp_avg_sq;
  void* best;           // like adv
  void* best_distance;  // one value a row, compute dtype, here and below; infinity: none found
  void* distance;       // of adv, kept up to date
  void* dual;           // log(λ₂ / λ₁)
  void* dual_average;   // moving average of λ₁ = 1 / (1 + exp(dual))
  const void* inputs;
  const void* grad;
  const void* margin;  // of the point just predicted
  int64_t channels;
  int prox;
  int adaptive;      // Adam's second moment, or plain steps
  double step_size;  // in units of the box width
  double normalize;  // exponent of the norm that divides each row's gradient; 0: none
  double beta1, beta2, correction1, correction2;
  double dual_step, dual_limit, dual_momentum;
  double damping;  // the prox of a norm takes no √v̂ as below this share of the row's largest
  double low, high;
  void* workspace;
};

// Step of σ-zero. Batch.cols is a plane, as in StepArgs; the moments and the perturbation are in the compute dtype.
struct SigmaZeroArgs {
  void* adv;    // out: the next point
  void* delta;  // in units of the box width
  void* exp_avg;
  void* exp_avg_sq;
  void* threshold;  // one value a row, compute dtype, here and below
  void* distance;   // out: the groups in which adv differs from inputs
  const void* inputs;
  const void* grad;
  const void* adversarial;  // a byte a row: whether the point just predicted was
  int64_t channels;
  double step_size, sigma, threshold_step;
  double beta1, beta2, correction1, correction2;
  double low, high;
  void* workspace;
};

}  // namespace pyrobust

PR_DECLARE_OP(attack_seed, SeedArgs)
PR_DECLARE_OP(pgd_step, PgdArgs)
PR_DECLARE_OP(primal_dual_step, StepArgs)
PR_DECLARE_OP(sigma_zero_step, SigmaZeroArgs)
