// Small well-formed files, which between them hold every operation and every step: where mutation starts.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../tests/builder.h"

namespace fuzz {

// Names and files, always the same ones in the same order.
std::vector<std::pair<std::string, builder::File>> seeds();

}  // namespace fuzz
