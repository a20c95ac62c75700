// Maps of a test, and networks of a few layers that are run on every one of a machine's instruction sets.
#pragma once

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "builder.h"
#include "check.h"
#include "signbit/signbit.h"

namespace maps {

constexpr uint32_t kF32 = 0, kI32 = 1, kI16 = 2, kU8 = 4, kB1 = 6, kNoValue = 0xFFFFFFFF;

struct Map {
  int batch = 0, channels = 0, height = 0, width = 0;
  std::vector<float> v;

  Map() = default;
  Map(int n, int c, int h, int w) : batch(n), channels(c), height(h), width(w), v(size_t(n) * size_t(c) * size_t(h) * size_t(w)) {}
  float& at(int n, int c, int y, int x) { return v[((size_t(n) * size_t(channels) + size_t(c)) * size_t(height) + size_t(y)) * size_t(width) + size_t(x)]; }
  float at(int n, int c, int y, int x) const { return const_cast<Map*>(this)->at(n, c, y, x); }
};

// `value(n, c, y, x)` for each element.
template <typename Value>
Map make(int n, int c, int h, int w, Value value) {
  Map m(n, c, h, w);
  size_t at = 0;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < c; j++)
      for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) m.v[at++] = value(i, j, y, x);
  return m;
}

// The same bits, but that any NaN equals any other.
inline bool same(float a, float b) { return (a != a && b != b) || std::memcmp(&a, &b, 4) == 0; }

inline std::vector<std::string> instruction_sets() {
  std::vector<std::string> sets;
  const std::string names = signbit_instruction_sets();
  for (size_t start = 0; start <= names.size();) {
    const size_t end = std::min(names.find(',', start), names.size());
    sets.push_back(names.substr(start, end - start));
    start = end + 1;
  }
  return sets;
}

inline int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline std::string text(float x, bool integer) { return integer ? std::to_string(bits_of(x)) : std::to_string(x); }

// A file whose first value, 0, is the input, and what its outputs must be.
struct Network : builder::File {
  std::vector<Map> expected;

  explicit Network(int channels) { value(kF32, uint32_t(channels)); }

  uint32_t node(uint32_t code, const std::vector<uint32_t>& inputs, uint32_t type, int channels,
                const std::vector<int32_t>& attrs = {}, const std::vector<uint32_t>& params = {}) {
    const uint32_t y = value(type, uint32_t(channels));
    nodes.push_back({code, "layer" + std::to_string(nodes.size()), inputs, {y}, attrs, params, {}});
    return y;
  }
  // A pointwise node of these steps, which stores what they give as f32.
  uint32_t pointwise(uint32_t x, int channels, const std::vector<builder::StepDef>& steps,
                     const std::vector<uint32_t>& others = {}) {
    std::vector<uint32_t> inputs = {x};
    inputs.insert(inputs.end(), others.begin(), others.end());
    const uint32_t y = node(6, inputs, kF32, channels);
    nodes.back().steps = steps;
    nodes.back().steps.push_back({7, y, {}, {}});
    return y;
  }
  // v >= 0 as a bit.
  uint32_t sign(uint32_t x, int channels) {
    const uint32_t y = node(6, {x}, kB1, channels);
    nodes.back().steps = {{9, y, {}, {add(builder::tensor(0, std::vector<float>(size_t(channels), 0.0f)))}}};
    return y;
  }
  void output(uint32_t v, const Map& e) {
    outputs.emplace_back(v, 0);
    expected.push_back(e);
  }

  // Run it twice (the second run finds the memory as the first left it) on each instruction set and compare.
  void check(const Map& input, int threads, const std::string& name) const {
    for (const std::string& isa : instruction_sets()) check_on(input, threads, isa, name + " on " + isa);
  }

 private:
  void check_on(const Map& input, int threads, const std::string& isa, const std::string& name) const {
    const std::vector<uint8_t> file = bytes();
    char error[512];
    signbit_model* model = nullptr;
    signbit_session* session = nullptr;
    const signbit_session_options options = {input.batch, input.height, input.width, threads, isa.c_str(), 0};
    check::that(signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) == SIGNBIT_OK, name + ": " + error);
    if (signbit_session_open(model, &options, &session, error, sizeof error) != SIGNBIT_OK) {
      check::that(false, name + ": " + error);
      signbit_model_close(model);
      return;
    }
    std::vector<std::vector<float>> found;
    std::vector<float*> pointers;
    bool fits = true;
    for (size_t i = 0; i < expected.size(); i++) {
      int64_t shape[4] = {0, 0, 0, 0};
      int32_t rank;
      signbit_session_output_shape(session, int32_t(i), shape, &rank);
      const Map& e = expected[i];
      fits = fits && shape[0] == e.batch && shape[1] == e.channels && shape[2] == e.height && shape[3] == e.width;
      found.emplace_back(size_t(shape[0] * shape[1] * shape[2] * shape[3]), 12345.0f);
    }
    for (auto& y : found) pointers.push_back(y.data());
    check::that(fits, name + ": shape");
    for (int round = 0; round < 2 && fits; round++) {
      check::that(signbit_session_run(session, input.v.data(), SIGNBIT_INPUT_F32_NCHW, pointers.data(), error, sizeof error) == SIGNBIT_OK,
                  name + ": " + error);
      for (size_t i = 0; i < expected.size(); i++) {
        const bool integers = values[outputs[i].first].first == kI32;  // as their bits
        int wrong = 0;
        size_t first = 0;
        for (size_t k = 0; k < found[i].size(); k++)
          if (!(integers ? bits_of(found[i][k]) == bits_of(expected[i].v[k]) : same(found[i][k], expected[i].v[k])) && !wrong++) first = k;
        check::that(wrong == 0, name + ": output " + std::to_string(i) + ": " + std::to_string(wrong) + " differ, at " +
                                    std::to_string(first) + " " + text(found[i][first], integers) + " instead of " +
                                    text(expected[i].v[first], integers));
      }
    }
    signbit_session_close(session);
    signbit_model_close(model);
  }
};

}  // namespace maps
