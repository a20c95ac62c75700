// Binary and 8-bit convolutions against naive loops: random configurations over kernels, strides, padding, dilation
// (each of them apart for height and width), groups, padding values, odd channel counts, batches, threads and
// epilogues, on every instruction set of this machine.
//
//   test_convolution [configurations [seed]]
//
// Configuration i is drawn from seed + i, which a mismatch prints: `test_convolution 1 SEED` runs it alone.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>

#include "builder.h"
#include "check.h"
#include "maps.h"
#include "naive.h"
#include "signbit/signbit.h"

namespace {

constexpr uint32_t kF32 = 0, kU8 = 4, kI4 = 5, kB1 = 6, kNoValue = 0xFFFFFFFF;

using Random = std::mt19937;
int pick(Random& rng, int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

enum class Ending {
  kSums,    // float32 of the sums
  kBits,    // thresholds -> bits -> a second convolution
  kBytes,   // scaled and quantised to 8 bits -> a second convolution
  kFourBits // two convolutions of one input, quantised to 4 bits and added
};

struct Case {
  naive::Conv conv;
  bool binary;
  int zero_point;  // of an 8-bit input
  Ending ending;
  int height, width, batch, threads;
  int shift = 0;  // the zero point that the 8-bit input was quantised with, less that of the convolution
  int levels = 255;  // the greatest number that it was quantised to
};

std::string describe(const Case& c) {
  const naive::Conv& v = c.conv;
  static const char* endings[] = {"sums", "bits", "bytes", "int4"};
  std::string text = c.binary ? "binary" : "8-bit";
  auto add = [&](const char* name, int a, int b) {
    text += std::string(" ") + name + std::to_string(a) + (b < 0 ? "" : "x" + std::to_string(b));
  };
  add("channels ", v.channels, -1);
  add("out ", v.out, -1);
  add("groups ", v.groups, -1);
  add("kernel ", v.kernel_h, v.kernel_w);
  add("stride ", v.stride_h, v.stride_w);
  add("pad ", v.pad_h, v.pad_w);
  add("dilation ", v.dilation_h, v.dilation_w);
  text += " outside " + std::to_string(v.outside);
  add("image ", c.height, c.width);
  add("batch ", c.batch, -1);
  add("threads ", c.threads, -1);
  text += " shift " + std::to_string(c.shift) + " levels " + std::to_string(c.levels);
  return text + " -> " + endings[int(c.ending)];
}

Case draw(Random& rng) {
  Case c = {};
  naive::Conv& v = c.conv;
  c.binary = pick(rng, 0, 2) > 0;
  c.zero_point = pick(rng, 0, 255);
  c.ending = Ending(pick(rng, 0, 3));
  const int kind = pick(rng, 0, 10);
  if (kind < 4) {
    v.groups = 1;
    v.channels = pick(rng, 1, kind ? 40 : 3);  // of an image, whose dwords have room
    v.out = pick(rng, 1, 30);
  } else if (kind < 7) {
    v.groups = pick(rng, 2, 6);
    v.channels = v.groups * pick(rng, 1, 11);
    v.out = v.groups * pick(rng, 1, 11);
  } else if (kind < 9) {  // depthwise, with a multiplier or without
    v.groups = v.channels = pick(rng, 1, 24);
    v.out = v.channels * (pick(rng, 0, 2) ? 1 : pick(rng, 2, 3));
  } else if (kind < 10) {  // several matrix tiles, of either operand
    v.groups = 1;
    v.channels = pick(rng, 30, 200);
    v.out = pick(rng, 14, 80);
  } else {  // so many channels that counts leave a byte
    v.groups = pick(rng, 1, 2);
    v.channels = v.groups * pick(rng, 60, 150);
    v.out = v.groups * pick(rng, 1, 6);
  }
  const int longest = pick(rng, 0, 7) ? 5 : 13;
  for (int axis = 0; axis < 2; axis++) {
    int& kernel = axis ? v.kernel_w : v.kernel_h;
    int& pad = axis ? v.pad_w : v.pad_h;
    int& dilation = axis ? v.dilation_w : v.dilation_h;
    kernel = pick(rng, 1, v.channels > 100 ? 3 : longest);
    (axis ? v.stride_w : v.stride_h) = pick(rng, 0, 2) ? pick(rng, 1, 3) : pick(rng, 1, 7);
    dilation = pick(rng, 0, 2) ? 1 : pick(rng, 2, 3);
    pad = pick(rng, 0, 3) ? pick(rng, 0, kernel - 1) : pick(rng, 0, 2 * kernel + 2);
    const int span = dilation * (kernel - 1) + 1, least = std::max(1, span - 2 * pad);
    (axis ? c.width : c.height) = least + (pick(rng, 0, 3) ? pick(rng, 0, 14) : 0);
  }
  v.outside = c.binary ? pick(rng, -1, 1) : 0;
  c.batch = pick(rng, 0, 1) ? 1 : pick(rng, 2, 4);
  c.threads = pick(rng, 1, 3);
  c.levels = pick(rng, 0, 2) ? 255 : pick(rng, 0, 2) ? 15 : pick(rng, 1, 254);
  if (!pick(rng, 0, 2) || c.zero_point > c.levels) c.shift = pick(rng, 0, c.levels) - c.zero_point;
  return c;
}

// The operands of one configuration and what comes out of it.
struct Problem {
  std::vector<uint8_t> file;
  std::vector<float> input;
  std::vector<float> expected;
};

std::vector<int> draw_weights(Random& rng, const naive::Conv& conv, bool binary) {
  std::vector<int> weight(conv.weights());
  const int limit = pick(rng, 0, 2) ? 128 : 8;
  for (int& w : weight) w = binary ? 2 * pick(rng, 0, 1) - 1 : pick(rng, -limit, limit - 1);
  return weight;
}

int largest(const std::vector<int>& sums) {
  int most = 1;
  for (int s : sums) most = std::max(most, std::abs(s));
  return most;
}

int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// Builds a file node by node, and computes beside it what each node gives.
class Maker {
 public:
  Maker(const Case& c, Random& rng) : c_(c), rng_(rng) {}

  Problem make() {
    const naive::Conv& v = c_.conv;
    Problem p;
    std::vector<int> x(size_t(c_.batch * v.channels) * size_t(c_.height * c_.width));
    for (int& a : x) a = c_.binary ? 2 * pick(rng_, 0, 1) - 1 : pick(rng_, -c_.zero_point, 255 - c_.zero_point);
    for (int& a : x) {
      p.input.push_back(float(a - (c_.binary ? 0 : c_.shift)));
      if (!c_.binary) a = std::min(a, c_.levels - c_.zero_point);
    }
    height_ = v.out_height(c_.height);
    width_ = v.out_width(c_.width);
    const uint32_t input = file_.value(kF32, uint32_t(v.channels)),
                   operand = file_.value(c_.binary ? kB1 : kU8, uint32_t(v.channels));
    if (c_.binary)
      file_.nodes.push_back({6, "bits", {input}, {operand}, {}, {}, {{9, operand, {}, {floats(v.channels, 0.0f)}}}});
    else
      file_.nodes.push_back({6, "bytes", {input}, {operand}, {}, {}, {{10, operand, {bits_of(1.0f), c_.zero_point + c_.shift, c_.levels}, {}}}});
    const std::vector<int> sums = convolve(x, "conv", operand);
    switch (c_.ending) {
      case Ending::kSums:
        finish(sums);
        break;
      case Ending::kBits:
        through_bits(sums);
        break;
      case Ending::kBytes:
        through_bytes(sums);
        break;
      case Ending::kFourBits:
        through_four_bits(sums, x, operand);
        break;
    }
    p.expected = expected_;
    p.file = file_.bytes();
    return p;
  }

 private:
  uint32_t floats(int count, float value) { return file_.add(builder::tensor(0, std::vector<float>(size_t(count), value))); }

  uint32_t channel_of(size_t i) const { return uint32_t(i / size_t(height_ * width_) % size_t(c_.conv.out)); }

  // A convolution of the case's shape without steps; these follow.
  std::vector<int> convolve(const std::vector<int>& x, const char* path, uint32_t operand) {
    const naive::Conv& v = c_.conv;
    const std::vector<int> weight = draw_weights(rng_, v, c_.binary);
    const uint32_t w = c_.binary ? file_.add(builder::tensor(4, v.pack_bits(weight)))
                                 : file_.add(builder::weights(v.pack_bytes(weight)));
    file_.nodes.push_back({c_.binary ? 1u : 2u, path, {operand}, {}, v.attrs(c_.binary ? v.outside : c_.zero_point), {w}, {}});
    return v.run(x, weight, c_.batch, c_.height, c_.width);
  }

  // float32 of the last convolution's integers, to the output.
  void finish(const std::vector<int>& sums, int channels) {
    const uint32_t y = file_.value(kF32, uint32_t(channels));
    builder::NodeDef& node = file_.nodes.back();
    node.outputs.push_back(y);
    node.steps.push_back({1, kNoValue, {}, {floats(channels, 1.0f), floats(channels, 0.0f)}});
    node.steps.push_back({7, y, {}, {}});
    file_.outputs = {{y, 0}};
    expected_.assign(sums.begin(), sums.end());
  }
  void finish(const std::vector<int>& sums) { finish(sums, c_.conv.out); }

  // A second convolution sees what the first wrote: its pixels and, with padding, what stands around them.
  void second(const std::vector<int>& x, uint32_t operand, bool binary, int zero_point) {
    const int out = c_.conv.out;
    const bool one_by_one = pick(rng_, 0, 1) || height_ * width_ > 4096;
    naive::Conv v = one_by_one ? naive::Conv{out, out, 1, 1, 1, 1, 0, 0, 1, 1, out, 0}
                               : naive::Conv{out, pick(rng_, 1, 6), 3, 3, 1, 1, 1, 1, 1, 1, 1, 0};
    if (binary) v.outside = pick(rng_, -1, 1);
    const std::vector<int> weight = draw_weights(rng_, v, binary);
    const uint32_t w = binary ? file_.add(builder::tensor(4, v.pack_bits(weight)))
                              : file_.add(builder::weights(v.pack_bytes(weight)));
    file_.nodes.push_back({binary ? 1u : 2u, "second", {operand}, {}, v.attrs(binary ? v.outside : zero_point), {w}, {}});
    finish(v.run(x, weight, c_.batch, height_, width_), v.out);
  }

  void through_bits(const std::vector<int>& sums) {
    const int out = c_.conv.out, most = largest(sums);
    const bool one_cut = pick(rng_, 0, 2) > 0;  // of each channel, which kernels may take instead of the sums
    std::vector<int32_t> low, high;
    std::vector<uint8_t> flip;
    for (int o = 0; o < out; o++) {
      const bool lower = pick(rng_, 0, 1), upper = one_cut ? !lower : pick(rng_, 0, 1) > 0;
      low.push_back(lower || !one_cut ? pick(rng_, -most, most) : -2147483647);
      high.push_back(upper ? pick(rng_, -most, most) : 2147483647);
      flip.push_back(uint8_t(pick(rng_, 0, 1)));
    }
    std::vector<int> bits;
    for (size_t i = 0; i < sums.size(); i++) {
      const size_t o = channel_of(i);
      const bool inside = low[o] <= sums[i] && sums[i] <= high[o];
      bits.push_back(inside != (flip[o] == 1) ? 1 : -1);
    }
    const uint32_t b = file_.value(kB1, uint32_t(out));
    file_.nodes.back().outputs.push_back(b);
    const uint32_t l = file_.add(builder::tensor(1, low)), h = file_.add(builder::tensor(1, high)),
                   f = file_.add(builder::tensor(4, flip));
    file_.nodes.back().steps.push_back({8, b, {}, {l, h, f}});
    second(bits, b, true, 0);
  }

  void through_bytes(const std::vector<int>& sums) {
    // what the bytes are made with, and what their reader takes away
    const int out = c_.conv.out, levels = pick(rng_, 0, 1) ? 255 : pick(rng_, 0, 1) ? 15 : pick(rng_, 1, 254);
    const int zero_point = pick(rng_, 0, levels), readers = pick(rng_, 0, 2) ? zero_point : pick(rng_, 0, 255);
    // a power of two, so that the products are exact and only the rounding to bytes is tested
    const float scale = std::ldexp(1.0f, 7 - std::ilogb(float(largest(sums))));
    std::vector<int> bytes;
    for (int s : sums)
      bytes.push_back(int(std::min(std::max(std::nearbyint(float(s) * scale) + float(zero_point), 0.0f), float(levels))) - readers);
    const uint32_t q = file_.value(kU8, uint32_t(out));
    file_.nodes.back().outputs.push_back(q);
    file_.nodes.back().steps.push_back({1, kNoValue, {}, {floats(out, 1.0f), floats(out, 0.0f)}});
    file_.nodes.back().steps.push_back({10, q, {bits_of(scale), zero_point, levels}, {}});
    second(bytes, q, false, readers);
  }

  void through_four_bits(const std::vector<int>& sums, const std::vector<int>& x, uint32_t operand) {
    const int out = c_.conv.out;
    std::vector<int32_t> cuts, multiplier, offset;
    std::vector<uint8_t> flip;
    int most = largest(sums);
    for (int o = 0; o < out; o++) {
      std::vector<int32_t> row;
      for (int i = 0; i < 15; i++) row.push_back(pick(rng_, -most, most));
      std::sort(row.begin(), row.end());
      cuts.insert(cuts.end(), row.begin(), row.end());
      flip.push_back(uint8_t(pick(rng_, 0, 1)));
    }
    std::vector<int> ladder;
    for (size_t i = 0; i < sums.size(); i++) {
      const size_t o = channel_of(i);
      const int u = flip[o] ? -sums[i] : sums[i];
      ladder.push_back(-8 + int(std::upper_bound(&cuts[15 * o], &cuts[15 * o] + 15, u) - &cuts[15 * o]));
    }
    const uint32_t four = file_.value(kI4, uint32_t(out));
    file_.nodes.back().outputs.push_back(four);
    const uint32_t k = file_.add(builder::tensor(1, cuts)), f = file_.add(builder::tensor(4, flip));
    file_.nodes.back().steps = {{6, kNoValue, {}, {k, f}}, {7, four, {}, {}}};

    std::vector<int> total = convolve(x, "other", operand);
    most = largest(total);
    const int shift = std::max(0, std::ilogb(float(most)) + 1);
    for (int o = 0; o < out; o++) {
      multiplier.push_back(pick(rng_, -20, 20));
      offset.push_back(pick(rng_, -most, most));
    }
    for (size_t i = 0; i < total.size(); i++) {
      const size_t o = channel_of(i);
      const int64_t scaled = int64_t(total[i]) * multiplier[o] + offset[o];
      const int64_t floor = scaled >= 0 ? scaled >> shift : -((-scaled + (int64_t(1) << shift) - 1) >> shift);
      total[i] = int(std::min<int64_t>(std::max<int64_t>(floor, -8), 7)) + ladder[i];
    }
    const uint32_t m = file_.add(builder::tensor(1, multiplier)), b = file_.add(builder::tensor(1, offset));
    file_.nodes.back().inputs.push_back(four);
    file_.nodes.back().steps = {{5, kNoValue, {shift}, {m, b}}, {2, four, {}, {}}};
    finish(total);
  }

  const Case& c_;
  Random& rng_;
  builder::File file_;
  int height_ = 0, width_ = 0;
  std::vector<float> expected_;
};

using Model = std::unique_ptr<signbit_model, void (*)(signbit_model*)>;
using Session = std::unique_ptr<signbit_session, void (*)(signbit_session*)>;

// Each gives null, and the engine's message in `error`, where the engine refuses.
Model open_model(const std::vector<uint8_t>& file, std::string* error) {
  char message[256] = "";
  signbit_model* model = nullptr;
  signbit_model_open_memory(file.data(), file.size(), &model, message, sizeof message);
  *error = message;
  return {model, signbit_model_close};
}

Session open_session(const signbit_model* model, const Case& c, const char* isa, std::string* error) {
  char message[256] = "";
  signbit_session* session = nullptr;
  signbit_session_options options = {};
  options.batch = c.batch;
  options.height = c.height;
  options.width = c.width;
  options.threads = c.threads;
  options.isa = isa;
  signbit_session_open(model, &options, &session, message, sizeof message);
  *error = message;
  return {session, signbit_session_close};
}

// Empty where a run gives what is expected, else what is wrong.
std::string run(signbit_session* session, const Problem& p) {
  int64_t shape[4] = {0, 0, 0, 0};
  int32_t rank = 0;
  signbit_session_output_shape(session, 0, shape, &rank);
  std::vector<float> y(size_t(shape[0] * shape[1] * shape[2] * shape[3]));
  if (y.size() != p.expected.size())
    return "gives " + std::to_string(y.size()) + " numbers instead of " + std::to_string(p.expected.size());
  float* outputs[] = {y.data()};
  char message[256] = "";
  if (signbit_session_run(session, p.input.data(), SIGNBIT_INPUT_F32_NCHW, outputs, message, sizeof message) != SIGNBIT_OK)
    return message;
  size_t wrong = 0;
  for (size_t i = 0; i < y.size(); i++) wrong += y[i] != p.expected[i];
  return wrong ? std::to_string(wrong) + " of " + std::to_string(y.size()) + " results differ" : "";
}

std::string run_case(const Case& c, const Problem& p, const char* isa) {
  std::string error;
  const Model model = open_model(p.file, &error);
  if (!model) return error;
  const Session session = open_session(model.get(), c, isa, &error);
  if (!session) return error;
  error = run(session.get(), p);
  return error.empty() ? run(session.get(), p) : error;  // the second finds the memory as the first left it
}

// What the networks have, sums beyond 16 bits, maps of several bands, full-HD images.
std::vector<Case> fixed_cases() {
  const auto sums = Ending::kSums;
  return {
      {{64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 14, 14, 1, 1},
      {{64, 128, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, true, 0, sums, 14, 14, 1, 2},
      {{64, 128, 1, 1, 2, 2, 0, 0, 1, 1, 1, 0}, true, 0, sums, 14, 14, 2, 2},
      {{3, 64, 7, 7, 2, 2, 3, 3, 1, 1, 1, 0}, false, 114, sums, 31, 29, 1, 2},
      {{3, 20, 4, 4, 4, 4, 0, 0, 1, 1, 1, 0}, false, 9, sums, 33, 38, 2, 1},
      {{3, 9, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, false, 201, sums, 26, 31, 2, 2},
      {{3, 9, 3, 5, 2, 1, 1, 2, 1, 1, 1, 0}, false, 201, sums, 17, 22, 1, 1},
      {{2, 17, 5, 5, 3, 2, 0, 2, 1, 2, 1, 0}, false, 77, sums, 21, 24, 1, 1},
      {{1, 33, 7, 7, 2, 2, 3, 2, 1, 1, 1, 0}, false, 255, sums, 29, 28, 3, 2},
      {{256, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 7, 7, 1, 1},
      {{128, 10, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, true, 0, sums, 1, 1, 5, 1},
      {{4096, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 2, 2, 1, 1},
      {{7281, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, true, 0, Ending::kBits, 3, 2, 1, 1},  // 65529 taps
      {{7281, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, false, 255, Ending::kFourBits, 3, 2, 1, 1},
      {{1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, true, 0, sums, 1, 1, 1, 1},
      {{1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 1, 1, 1, 1},
      {{4, 4, 64, 1, 3, 5, 40, 2, 1, 1, 2, -1}, true, 0, sums, 9, 11, 2, 2},
      {{4, 4, 2, 3, 1, 2, 30, 0, 17, 2, 4, 0}, false, 9, sums, 1, 33, 2, 2},
      {{3, 2, 260, 1, 1, 1, 130, 0, 1, 1, 1, -1}, true, 0, sums, 1, 5, 1, 1},
      {{3, 6, 1, 2, 4096, 4096, 1, 0, 1, 9, 3, 0}, false, 7, sums, 2, 4111, 2, 1},  // the longest stride of a file
      {{1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, false, 128, sums, 2, 2, 2, 1, -128},  // around the image 128, not 0
      {{256, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kBits, 90, 120, 2, 2},
      // Several tiles of pixels and blocks of channels, the last of which is short, by one to three threads.
      {{192, 13, 3, 3, 1, 1, 1, 1, 1, 1, 1, -1}, true, 0, Ending::kBits, 14, 14, 3, 3},
      {{192, 61, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kBits, 15, 13, 3, 2},
      {{128, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, true, 0, Ending::kBits, 17, 13, 1, 1},
      {{256, 61, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kBits, 28, 27, 2, 3},
      {{130, 12, 5, 5, 1, 1, 2, 2, 1, 1, 1, -1}, true, 0, Ending::kBits, 14, 14, 1, 3},
      {{520, 34, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, true, 0, Ending::kBits, 14, 9, 2, 3},
      {{64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, true, 0, Ending::kBits, 56, 56, 1, 3},
      {{256, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kFourBits, 14, 14, 2, 3},
      {{80, 12, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1}, true, 0, sums, 180, 200, 1, 3},
      // Strided, of many tiles, and with channels that pad a nibble.
      {{64, 72, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kBits, 112, 112, 1, 3},
      {{66, 40, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1}, true, 0, Ending::kBits, 60, 45, 2, 2},
      {{64, 40, 5, 5, 3, 2, 2, 1, 2, 1, 1, -1}, true, 0, Ending::kBits, 61, 50, 2, 3},
      // Padding beyond the kernel, and a tile that ends where an image begins.
      {{1024, 64, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 12, 14, 2, 1},
      {{1024, 64, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, sums, 16, 19, 2, 2},
      {{1024, 64, 2, 2, 1, 1, 2, 2, 1, 1, 1, 0}, true, 0, sums, 11, 18, 2, 1},
      {{1024, 64, 2, 2, 1, 1, 2, 2, 1, 1, 1, 0}, true, 0, sums, 12, 17, 2, 2},
      {{60, 40, 3, 3, 1, 1, 1, 1, 1, 1, 2, 0}, false, 100, sums, 90, 120, 1, 2},
      {{3, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, true, 0, Ending::kBits, 1080, 1920, 1, 2},
      {{3, 8, 7, 7, 2, 2, 3, 3, 1, 1, 1, 0}, false, 114, Ending::kBytes, 1080, 1920, 1, 2},
  };
}

class Tally {
 public:
  void test(const Case& c, Random rng, const std::string& seed) {
    const Problem problem = Maker(c, rng).make();
    for (size_t i = 0; i < sets_.size(); i++) {
      const std::string wrong = run_case(c, problem, sets_[i].c_str());
      configurations_[i]++;
      check::that(wrong.empty(), sets_[i] + " " + describe(c) + " (" + seed + "): " + wrong);
      if (!wrong.empty()) mismatches_[i]++;
    }
  }

  void print() const {
    for (size_t i = 0; i < sets_.size(); i++)
      std::printf("%s: %d configurations, %d mismatches\n", sets_[i].c_str(), configurations_[i], mismatches_[i]);
  }

 private:
  const std::vector<std::string> sets_ = maps::instruction_sets();
  std::vector<int> configurations_ = std::vector<int>(sets_.size(), 0), mismatches_ = configurations_;
};

// One open model, with sessions of several sizes and batches side by side, gives what a fresh one gives.
void test_sizes() {
  const Case first = {{6, 10, 3, 2, 2, 1, 1, 2, 1, 1, 2, 1}, true, 0, Ending::kBits, 12, 15, 1, 2};
  std::vector<Case> cases;
  std::vector<Problem> problems;
  for (const auto& size : {std::array<int, 3>{12, 15, 1}, {1, 1, 1}, {40, 3, 3}, {12, 15, 4}, {5, 70, 2}}) {
    Case c = first;
    c.height = size[0];
    c.width = size[1];
    c.batch = size[2];
    cases.push_back(c);
  }
  // The first problem's file serves all sizes; what it gives for another size comes from a model of its own.
  std::string error;
  Random rng(5);
  problems.push_back(Maker(cases[0], rng).make());
  const Model shared = open_model(problems[0].file, &error);
  check::that(shared != nullptr, "a model for several sizes: " + error);
  if (!shared) return;
  for (size_t i = 1; i < cases.size(); i++) {
    Problem p = {problems[0].file, {}, {}};
    const Case& c = cases[i];
    p.input.resize(size_t(c.batch * c.conv.channels * c.height * c.width));
    for (float& x : p.input) x = float(2 * pick(rng, 0, 1) - 1);
    const Model fresh = open_model(p.file, &error);
    const Session session = open_session(fresh.get(), c, nullptr, &error);
    check::that(session != nullptr, describe(c) + ": " + error);
    if (!session) return;
    int64_t shape[4];
    int32_t rank;
    signbit_session_output_shape(session.get(), 0, shape, &rank);
    p.expected.resize(size_t(shape[0] * shape[1] * shape[2] * shape[3]));
    float* outputs[] = {p.expected.data()};
    signbit_session_run(session.get(), p.input.data(), SIGNBIT_INPUT_F32_NCHW, outputs, nullptr, 0);
    problems.push_back(std::move(p));
  }
  std::vector<Session> sessions;
  for (const Case& c : cases) {
    sessions.push_back(open_session(shared.get(), c, nullptr, &error));
    check::that(sessions.back() != nullptr, describe(c) + ": " + error);
    if (!sessions.back()) return;
  }
  for (int round = 0; round < 3; round++)
    for (size_t i = 0; i < cases.size(); i++) {
      const std::string wrong = run(sessions[i].get(), problems[i]);
      check::that(wrong.empty(), "one model, several sizes: " + describe(cases[i]) + ": " + wrong);
    }
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 300, seed = argc > 2 ? std::atol(argv[2]) : 1;
  if (count < 1 || seed < 0) {
    std::fprintf(stderr, "usage: test_convolution [configurations [seed]]\n");
    return 2;
  }
  Tally tally;
  if (argc < 3) {
    test_sizes();
    for (const Case& c : fixed_cases()) tally.test(c, Random(1), "fixed");
  }
  for (long i = 0; i < count; i++) {
    Random rng(uint32_t(seed + i));
    const Case c = draw(rng);
    tally.test(c, rng, "seed " + std::to_string(seed + i));
  }
  tally.print();
  return check::report();
}
