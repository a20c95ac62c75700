// Text from a file goes into messages and JSON, so it is checked once, where it is read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace signbit {

// Whether bytes are UTF-8, without long forms, surrogates and what lies behind U+10FFFF.
inline bool is_utf8(const uint8_t* text, size_t size) {
  for (size_t i = 0; i < size;) {
    const uint8_t lead = text[i++];
    const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
    if (more < 0 || size - i < size_t(more)) return false;
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (int k = 0; k < more; k++, i++)
      if (text[i] < (k ? 0x80 : low) || text[i] > (k ? 0xBF : high)) return false;
  }
  return true;
}

}  // namespace signbit
