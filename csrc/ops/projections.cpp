#include "projections.cuh"

PR_DEFINE_ROW_OP(project_simplex, ProjectSimplex, ProjectionArgs)
PR_DEFINE_ROW_OP(project_l1_ball, ProjectL1Ball, ProjectionArgs)
PR_DEFINE_ROW_OP(project_l2_ball, ProjectL2Ball, ProjectionArgs)
PR_DEFINE_ROW_OP(project_linf_ball, ProjectLinfBall, ProjectionArgs)
PR_DEFINE_ROW_OP(project_l0_ball, ProjectL0Ball, L0BallArgs)
PR_DEFINE_ROW_OP(project_l1_box, ProjectL1Box, L1BoxArgs)
PR_DEFINE_ROW_OP(project_lp_sphere, ProjectLpSphere, SphereArgs)
