// The same definitions, compiled by nvcc.
#include "projections.cpp"
