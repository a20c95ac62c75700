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
  std::string metadata;  // the `__metadata__` object as JSON text
};

// Check the bytes of a file and find its parts. Throws FormatError naming the field.
Container open_container(std::shared_ptr<const uint8_t> storage, size_t size);

// Memory-map a file. Throws IoError.
Container map_file(const std::string& path);

}  // namespace signbit
