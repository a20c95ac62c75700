// Makes bad files of good ones. Deterministic: the same file and seed give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../tests/builder.h"

namespace fuzz {

using Bytes = std::vector<uint8_t>;

// splitmix64: small, and any seed is as good as any other.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  size_t below(size_t n) { return n ? size_t(next() % n) : 0; }
  bool one_in(size_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

// The parts of a well-formed file, to be changed and written again; nothing where the bytes are not one.
std::optional<builder::File> parse(const uint8_t* data, size_t size);

// Write the right digits over those of `"sha256":"`, where these stand in the header.
void repair_hash(Bytes* file);

// One to four changes: of the graph's parts, which are then written under a right header, or of the bytes as they lie. In
// three of four changed files the hash is repaired, so that what stands behind it is reached.
Bytes mutate(const Bytes& file, uint64_t seed);

}  // namespace fuzz
