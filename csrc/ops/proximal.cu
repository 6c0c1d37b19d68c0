// The same definitions, compiled by nvcc.
#include "proximal.cpp"
