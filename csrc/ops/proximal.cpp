#include "proximal.cuh"

PR_DEFINE_ROW_OP(prox_l0, ProxL0, ProxArgs)
PR_DEFINE_ROW_OP(prox_l1, ProxL1, ProxArgs)
PR_DEFINE_ROW_OP(prox_l2, ProxL2, ProxArgs)
PR_DEFINE_ROW_OP(prox_linf, ProxLinf, ProxArgs)
PR_DEFINE_ROW_OP(prox_l0_group, ProxL0Group, GroupProxArgs)
