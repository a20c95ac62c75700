// Makes the bytes of a signbit file, well-formed or not, so that the tests need no other writer.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "sha256.h"

namespace builder {

struct TensorDef {
  uint32_t dtype;  // 0 f32, 1 i32, 3 i8, 4 u8, 5 two 4-bit numbers a byte
  uint32_t count;
  std::vector<uint8_t> bytes;
};

template <typename T>
TensorDef tensor(uint32_t dtype, const std::vector<T>& values) {
  TensorDef t{dtype, uint32_t(values.size()), std::vector<uint8_t>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}

// Integer weights: as 4-bit numbers where all of them are, else as bytes.
inline TensorDef weights(const std::vector<int8_t>& values) {
  for (const int8_t w : values)
    if (w < -8 || w > 7) return tensor(3, values);
  TensorDef t{5, uint32_t(values.size()), std::vector<uint8_t>(values.size() / 2)};
  for (size_t i = 0; i < values.size(); i++) t.bytes[i / 2] |= uint8_t((values[i] & 15) << 4 * (i % 2));
  return t;
}

struct StepDef {
  uint32_t code;
  uint32_t value = 0xFFFFFFFF;
  std::vector<int32_t> attrs;
  std::vector<uint32_t> params;
};

struct NodeDef {
  uint32_t code;
  std::string path;
  std::vector<uint32_t> inputs, outputs;
  std::vector<int32_t> attrs;
  std::vector<uint32_t> params;
  std::vector<StepDef> steps;
};

struct File {
  std::vector<TensorDef> tensors;
  std::vector<std::pair<uint32_t, uint32_t>> values;  // type, channels
  std::vector<NodeDef> nodes;
  std::vector<std::pair<uint32_t, uint32_t>> outputs;
  uint32_t version = 4, header_version = 4;
  std::string input_shape = "1,1,1", metadata;  // `metadata`: more members, each with a comma behind it
  uint32_t normalised = 0, mean = 0xFFFFFFFF, std = 0xFFFFFFFF, input = 0;

  uint32_t add(TensorDef t) {
    tensors.push_back(std::move(t));
    return uint32_t(tensors.size() - 1);
  }
  uint32_t value(uint32_t type, uint32_t channels) {
    values.emplace_back(type, channels);
    return uint32_t(values.size() - 1);
  }

  std::vector<uint8_t> graph(const std::vector<uint64_t>& offsets) const {
    std::vector<uint32_t> words, body;
    std::string strings;
    for (const NodeDef& n : nodes) {
      for (uint32_t w : {n.code, uint32_t(strings.size()), uint32_t(n.path.size()), uint32_t(n.inputs.size()),
                         uint32_t(n.outputs.size()), uint32_t(n.attrs.size()), uint32_t(n.params.size()),
                         uint32_t(n.steps.size())})
        body.push_back(w);
      strings += n.path;
      body.insert(body.end(), n.inputs.begin(), n.inputs.end());
      body.insert(body.end(), n.outputs.begin(), n.outputs.end());
      for (int32_t a : n.attrs) body.push_back(uint32_t(a));
      body.insert(body.end(), n.params.begin(), n.params.end());
      for (const StepDef& s : n.steps) {
        for (uint32_t w : {s.code, s.value, uint32_t(s.attrs.size()), uint32_t(s.params.size())}) body.push_back(w);
        for (int32_t a : s.attrs) body.push_back(uint32_t(a));
        body.insert(body.end(), s.params.begin(), s.params.end());
      }
    }
    words = {0x31474253, version, uint32_t(tensors.size()), uint32_t(values.size()), uint32_t(nodes.size()),
             uint32_t(outputs.size()), uint32_t(body.size()), uint32_t(strings.size()), normalised, mean, std, input,
             0, 0, 0, 0, 0};
    for (size_t i = 0; i < tensors.size(); i++)
      for (uint32_t w : {tensors[i].dtype, tensors[i].count, uint32_t(offsets[i]), uint32_t(offsets[i] >> 32)})
        words.push_back(w);
    for (const auto& list : {values, outputs})
      for (const auto& pair : list) {
        words.push_back(pair.first);
        words.push_back(pair.second);
      }
    words.insert(words.end(), body.begin(), body.end());
    std::vector<uint8_t> bytes(words.size() * 4);
    std::memcpy(bytes.data(), words.data(), bytes.size());
    bytes.insert(bytes.end(), strings.begin(), strings.end());
    bytes.resize((bytes.size() + 63) / 64 * 64);
    return bytes;
  }

  std::vector<uint8_t> bytes() const {
    std::vector<uint64_t> offsets(tensors.size(), 0);
    uint64_t at = graph(offsets).size();
    for (size_t i = 0; i < tensors.size(); i++) {
      offsets[i] = at;
      at += (tensors[i].bytes.size() + 63) / 64 * 64;
    }
    std::vector<uint8_t> data = graph(offsets);
    std::string entries = "\"graph\":" + entry(0, data.size());
    for (size_t i = 0; i < tensors.size(); i++) {
      data.insert(data.end(), tensors[i].bytes.begin(), tensors[i].bytes.end());
      data.resize((data.size() + 63) / 64 * 64);
      entries += ",\"t" + std::to_string(i) + "\":" + entry(offsets[i], data.size());
    }
    const std::string zeros(64, '0');
    std::string header = "{\"__metadata__\":{\"format\":\"signbit\",\"version\":\"" + std::to_string(header_version) + "\",\"input_shape\":\"" +
                         input_shape + "\"," + metadata + "\"sha256\":\"" +
                         zeros + "\"}," + entries + "}";
    header.resize((header.size() + 8 + 63) / 64 * 64 - 8, ' ');
    std::vector<uint8_t> file(8 + header.size() + data.size());
    for (int i = 0; i < 8; i++) file[size_t(i)] = uint8_t(uint64_t(header.size()) >> (8 * i));
    std::memcpy(file.data() + 8, header.data(), header.size());
    std::memcpy(file.data() + 8 + header.size(), data.data(), data.size());
    signbit::Sha256 hash;
    hash.update(file.data(), file.size());
    const std::string digest = hash.hex_digest();
    std::memcpy(file.data() + 8 + header.find(zeros), digest.data(), 64);
    return file;
  }

 private:
  static std::string entry(uint64_t begin, uint64_t end) {
    return "{\"dtype\":\"U8\",\"shape\":[" + std::to_string(end - begin) + "],\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
};

}  // namespace builder
