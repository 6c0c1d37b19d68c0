// The same definitions, compiled by nvcc.
#include "attack_steps.cpp"
