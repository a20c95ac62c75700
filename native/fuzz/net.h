// A file and the lines of which small networks are made.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "../tests/builder.h"

namespace fuzz {

constexpr uint32_t kF32 = 0, kI32 = 1, kI16 = 2, kU8 = 4, kI4 = 5, kB1 = 6, kNone = 0xFFFFFFFF;

// What stands in a tensor follows from its length alone.
struct Net : builder::File {
  explicit Net(uint32_t channels) { value(kF32, channels); }

  uint32_t reals(size_t count, float low, float high) {
    std::vector<float> v(count);
    for (size_t i = 0; i < count; i++) v[i] = low + (high - low) * float(mix(i) % 64) / 64;
    return add(builder::tensor(0, v));
  }
  uint32_t integers(size_t count, int32_t low, int32_t high) {
    std::vector<int32_t> v(count);
    for (size_t i = 0; i < count; i++) v[i] = low + int32_t(mix(i) % uint32_t(high - low + 1));
    return add(builder::tensor(1, v));
  }
  uint32_t bytes_of(size_t count, uint32_t dtype, uint32_t mask) {
    std::vector<uint8_t> v(count);
    for (size_t i = 0; i < count; i++) v[i] = uint8_t(mix(i) & mask);
    return add(builder::tensor(dtype, v));
  }

  uint32_t channels_of(uint32_t v) const { return values[v].second; }

  // Steps.
  builder::StepDef affine(uint32_t c) { return {1, kNone, {}, {reals(c, 0.05f, 0.2f), reals(c, -1, 1)}}; }
  builder::StepDef sign(uint32_t v) { return {9, v, {}, {reals(channels_of(v), -1, 1)}}; }
  builder::StepDef store(uint32_t v) { return {7, v, {}, {}}; }
  // Of integers.
  builder::StepDef shift_sum(uint32_t c, int32_t digits) {
    const uint32_t shifts = integers(size_t(c) * size_t(digits), -6, 3);
    return {14, kNone, {digits}, {shifts, integers(size_t(c) * size_t(digits), -1, 1)}};
  }
  builder::StepDef shift_prelu(uint32_t c) {
    const uint32_t in = integers(c, -99, 99), shifts = integers(c, -4, 0), signs = integers(c, -1, 1);
    return {15, kNone, {1}, {in, shifts, signs, integers(c, -99, 99)}};
  }

  uint32_t pointwise(uint32_t from, std::vector<builder::StepDef> steps, std::vector<uint32_t> more = {}) {
    std::vector<uint32_t> inputs = {from}, outputs;
    inputs.insert(inputs.end(), more.begin(), more.end());
    for (const auto& s : steps)
      if (writes(s.code)) outputs.push_back(s.value);
    nodes.push_back({6, "point" + std::to_string(nodes.size()), inputs, outputs, {}, {}, steps});
    return outputs.back();
  }
  uint32_t bits(uint32_t from) { return pointwise(from, {sign(value(kB1, channels_of(from)))}); }

  struct Shape {
    int32_t kernel = 3, stride = 1, pad = 1, dilation = 1, groups = 1, outside = 0;
  };
  static bool writes(uint32_t code) { return (code >= 7 && code <= 10) || code == 16; }
  // A convolution of bits or of 8-bit values, by the type of `from`, or one that adds and shifts. `four_bits`: so many have
  // the weights that are no bits.
  uint32_t conv(uint32_t from, uint32_t out, Shape s, std::vector<builder::StepDef> steps, std::vector<uint32_t> more = {},
                bool shifts = false, bool four_bits = false) {
    const bool binary = values[from].first == kB1;
    const uint32_t code = binary ? 1 : shifts ? 11 : 2;
    const uint32_t in = channels_of(from);
    const size_t quads = (in / uint32_t(s.groups) + 3) / 4, taps = size_t(s.kernel) * size_t(s.kernel);
    const size_t group = in / uint32_t(s.groups);
    std::vector<uint8_t> weight((binary ? (out + 1) / 2 : out) * taps * quads * (binary ? 1 : 4));
    for (size_t i = 0; i < weight.size(); i++) weight[i] = uint8_t(mix(i));
    if (binary) {  // padding: bit 1 behind the channels of a group, bits 0 behind the last output channel
      for (size_t i = 0; i < weight.size(); i++) {
        if (group % 4 && i % quads == quads - 1) weight[i] |= uint8_t((0xF << group % 4 & 0xF) * 0x11);
        if (out % 2 && i / (taps * quads) == out / 2) weight[i] &= 0x0F;
      }
    } else {
      for (size_t i = 0; i < weight.size(); i++) {
        if (four_bits) weight[i] = uint8_t(weight[i] % 16 - 8);
        if (i % (4 * quads) >= group) weight[i] = 0;
      }
    }
    const std::vector<int8_t> numbers(weight.begin(), weight.end());
    std::vector<uint32_t> inputs = {from}, outputs;
    inputs.insert(inputs.end(), more.begin(), more.end());
    for (const auto& step : steps)
      if (writes(step.code)) outputs.push_back(step.value);
    nodes.push_back({code, "conv" + std::to_string(nodes.size()), inputs, outputs,
                     {int32_t(in), int32_t(out), s.kernel, s.kernel, s.stride, s.stride, s.pad, s.pad, s.dilation, s.dilation,
                      s.groups, s.outside},
                     {add(four_bits ? builder::weights(numbers) : builder::tensor(binary ? 4u : 3u, weight))}, steps});
    return outputs.back();
  }
  uint32_t conv_f32(uint32_t from, uint32_t out, Shape s) {
    const uint32_t y = value(kF32, out);
    return conv(from, out, s, {affine(out), store(y)});
  }
  // An operation without steps.
  uint32_t plain(uint32_t code, std::vector<uint32_t> from, uint32_t type, uint32_t channels, std::vector<int32_t> attrs,
                 std::vector<uint32_t> params = {}) {
    const uint32_t y = value(type, channels);
    nodes.push_back({code, "plain" + std::to_string(nodes.size()), from, {y}, attrs, params, {}});
    return y;
  }
  void give(uint32_t v, uint32_t flat = 0) { outputs.emplace_back(v, flat); }

 private:
  static uint32_t mix(size_t i) { return uint32_t((i + 1) * 2654435761u) >> 13; }
};

inline int32_t word_of(float f) {
  int32_t word;
  std::memcpy(&word, &f, 4);
  return word;
}

}  // namespace fuzz
