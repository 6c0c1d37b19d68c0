// The same definitions, compiled by nvcc.
#include "primal_dual.cpp"
