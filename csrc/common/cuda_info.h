// What the driver says of the CUDA devices.
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace pyrobust {

// For `pyrobust info`: one line a device; a single line with the cause where there is none. Never throws, works without
// a driver.
std::vector<std::string> cuda_devices();

// Why kernels cannot run on the device: the driver is too old for the toolkit that they were built with, or the device
// for what they were built for. Empty where they can.
std::string cuda_problem(int device);

// Whether rows of this batch are too long for a team of threads to keep on chip, so that kernels need a workspace of
// one compute-dtype element for each element of the batch.
bool outgrows_chip(const Batch& batch);

}  // namespace pyrobust
