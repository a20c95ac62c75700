// What this CPU can do at best, measured.
#pragma once

#include <string>

#include "../kernels/kernels.h"

namespace signbit {

// A peak of one core, best of several repeats: "look_up", "dot", "tile" (GMAC/s; the last 0 without tiles), "copy_l1", "copy_l2", "copy_l3" (0 where
// cache_bytes(3) is), "copy_memory" (GB/s, read and written); or a cache's size as cache_bytes says it: "l1_bytes",
// "l2_bytes", "l3_bytes". Takes some 30 ms, "copy_memory" some 500. Throws ArgumentError for another name.
double measure_peak(const KernelTable& kernels, const std::string& what);

}  // namespace signbit
