#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace signbit {

// FIPS 180-4. Feed pieces, then take the digest as 64 hexadecimal digits.
class Sha256 {
 public:
  // `portable` does without the CPU's own instructions.
  explicit Sha256(bool portable = false) : portable_(portable) {}
  void update(const uint8_t* data, size_t size);
  std::string hex_digest();

 private:
  void compress(const uint8_t* blocks, size_t count);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  bool portable_;
  uint8_t pending_[64];
  size_t pending_size_ = 0;
  uint64_t total_ = 0;
};

}  // namespace signbit
