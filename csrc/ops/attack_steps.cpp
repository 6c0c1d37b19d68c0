#include "attack_steps.cuh"

PR_DEFINE_ROW_OP(attack_seed, AttackSeed, SeedArgs)
PR_DEFINE_ROW_OP(pgd_step, PgdStep, PgdArgs)
