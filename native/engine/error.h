// Errors inside the engine; the C API turns them into codes.
#pragma once

#include <stdexcept>
#include <string>

namespace signbit {

struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ArgumentError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct UnsupportedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct IoError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace signbit
