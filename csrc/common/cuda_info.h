// The CUDA devices that the driver shows, for `pyrobust info`.
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace pyrobust {

// One line a device; a single line with the cause where there is none. Never throws, works without a driver.
std::vector<std::string> cuda_devices();

// Whether rows of this batch are too long for a team of threads to keep on chip, so that kernels need a workspace of
// one compute-dtype element for each element of the batch.
bool outgrows_chip(const Batch& batch);

}  // namespace pyrobust
