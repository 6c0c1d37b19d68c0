// The same definitions, compiled by nvcc.
#include "sigma_zero.cpp"
