// The same definitions, compiled by nvcc.
#include "sampling.cpp"
