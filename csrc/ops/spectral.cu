// The same definitions, compiled by nvcc.
#include "spectral.cpp"
