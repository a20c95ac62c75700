// The safetensors container: header, checks, and where each tensor's bytes are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace signbit {

struct Container {
  std::shared_ptr<const uint8_t> storage;  // keeps the bytes alive
  const uint8_t* data = nullptr;           // start of the tensors
  size_t data_size = 0;
  const uint8_t* graph = nullptr;  // the tensor named "graph"
  size_t graph_size = 0;
  uint32_t version = 0;   // 1 to kNewestVersion
  std::string metadata;  // the `__metadata__` object as JSON text
};

constexpr uint32_t kNewestVersion = 4;

// Throws FormatError for a version that this engine cannot read.
void check_version(uint32_t version, const char* field);

// Check the bytes of a file and find its parts. Throws FormatError naming the field.
Container open_container(std::shared_ptr<const uint8_t> storage, size_t size);

// Uninitialised memory for the bytes of a file, aligned as its tensors need.
std::shared_ptr<uint8_t> allocate_file(size_t size);

// Read a file into memory and check it. Not mapped: a mapped file that another program shortens ends this one with a
// bus error, and one that it overwrites changes after it was checked. Throws IoError.
Container read_file(const std::string& path);

}  // namespace signbit
