// Just enough JSON to read a safetensors header: a strict recursive parser with a depth limit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signbit {

struct Json {
  enum Kind { kNull, kBool, kNumber, kString, kArray, kObject } kind = kNull;
  std::string string;                                // of a string, with escapes resolved
  uint64_t number = 0;                               // of a non-negative integer
  bool is_integer = false;                           // of a number
  std::vector<Json> items;                           // of an array
  std::vector<std::pair<std::string, Json>> members; // of an object
  std::string_view text;                             // the source

  const Json* find(std::string_view key) const;
};

// Throws FormatError with the position of the fault.
Json parse_json(std::string_view text);

}  // namespace signbit
