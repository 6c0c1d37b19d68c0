// The same definitions, compiled by nvcc.
#include "norms.cpp"
