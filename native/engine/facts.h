// What a file's metadata says to people, read for callers of the C API.
#pragma once

#include <deque>
#include <string>

#include "program.h"

namespace signbit {

struct Facts {
  bool has_input_shape = false;
  int input_shape[3] = {0, 0, 0};        // channels, height, width
  std::deque<std::string> class_names;  // empty where the file has none, or not as a list of strings
};

Facts read_facts(const Program& program);

}  // namespace signbit
