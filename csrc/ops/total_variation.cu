// The same definitions, compiled by nvcc.
#include "total_variation.cpp"
