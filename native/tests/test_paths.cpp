// Ways through the kernels that random convolutions seldom take, against naive loops: weights and inputs at their extremes,
// sums of every length around where they widen, maps of a few pixels, tiles of every number of vectors, cuts at the ends of
// what sums can be, and epilogues that are compiled as one beside others of the same steps. On every instruction set of this
// machine.
//
//   test_paths [cases [seed]]
//
// Case i is drawn from seed + i, which a mismatch prints: `test_paths 1 SEED` runs it alone.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>

#include "maps.h"
#include "naive.h"

using maps::bits_of;
using maps::kB1;
using maps::kF32;
using maps::kNoValue;
using maps::Map;
using maps::Network;

namespace {

constexpr uint32_t kU8 = 4, kI4 = 5;
constexpr int32_t kLeast = std::numeric_limits<int32_t>::min(), kMost = std::numeric_limits<int32_t>::max();

std::mt19937 rng(1);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }
template <typename T>
T one_of(const std::vector<T>& choices) {
  return choices[size_t(pick(0, int(choices.size()) - 1))];
}
int threads() { return pick(0, 3) ? 1 : pick(2, 3); }  // idle ones wait in a loop, and there may be one CPU
float real() { return std::normal_distribution<float>(0.0f, 2.0f)(rng); }

struct Shape {
  naive::Conv conv;
  bool binary;
  int zero_point;
  int batch, height, width;

  std::string text() const {
    const naive::Conv& v = conv;
    std::string t = binary ? "binary" : "8-bit";
    for (int n : {v.channels, v.out, v.groups, v.kernel_h, v.kernel_w, v.stride_h, v.pad_h, v.pad_w, v.outside, zero_point,
                  batch, height, width})
      t += " " + std::to_string(n);
    return t;
  }
};

// A convolution under test, whose epilogue is built step by step, beside what each of its outputs must be.
class Layer {
 public:
  // `x`: bits as -1 and 1, or bytes.
  Layer(const Shape& s, const std::vector<int>& x, const std::vector<int>& weight)
      : s_(s), net_(s.conv.channels), input_(s.batch, s.conv.channels, s.height, s.width), x_(x) {
    if (!s.binary)
      for (int& q : x_) q -= s.zero_point;
    input_.v.assign(x_.begin(), x_.end());
    operand_ = net_.value(s.binary ? kB1 : kU8, uint32_t(s.conv.channels));
    net_.nodes.push_back({6, "operand", {0}, {operand_}, {}, {}, {}});
    std::vector<builder::StepDef>& steps = net_.nodes.back().steps;
    if (pick(0, 2) == 0) steps.push_back(clip());  // quant8 alone is compiled as one
    if (s.binary)
      steps.push_back({9, operand_, {}, {floats(s.conv.channels, 0.0f)}});
    else
      steps.push_back({10, operand_, {bits_of(1.0f), s.zero_point, 255}, {}});
    conv_ = convolution(weight);
    ints_ = sums(weight);
  }

  // The steps of docs/format.md by their codes; parameters are drawn. `cuts`: what thresholds have, below.
  void steps(const std::vector<int>& codes, int cuts) {
    for (int code : codes) step(code, cuts);
  }

  void threshold(const std::vector<int32_t>& low, const std::vector<int32_t>& high, const std::vector<uint8_t>& flip) {
    const uint32_t b = net_.value(kB1, uint32_t(out()));
    const uint32_t l = net_.add(builder::tensor(1, low)), h = net_.add(builder::tensor(1, high)), f = net_.add(builder::tensor(4, flip));
    conv_.steps.push_back({8, b, {}, {l, h, f}});
    conv_.outputs.push_back(b);
    std::vector<int> bits;
    for (size_t i = 0; i < ints_.size(); i++) {
      const size_t c = channel_of(i);
      bits.push_back((low[c] <= ints_[i] && ints_[i] <= high[c]) != (flip[c] == 1) ? 1 : -1);
    }
    read_bits(b, bits);
  }

  // What the reader of bits finds around the image.
  void surround(int outside) { around_ = outside; }

  void check(int threads, const std::string& name) {
    net_.nodes.push_back(conv_);
    for (const auto& add_reader : readers_) add_reader();
    net_.check(input_, threads, name + " " + s_.text());
  }

 private:
  int out() const { return s_.conv.out; }
  int out_height() const { return s_.conv.out_height(s_.height); }
  int out_width() const { return s_.conv.out_width(s_.width); }
  size_t channel_of(size_t i) const { return i / size_t(out_height() * out_width()) % size_t(out()); }
  template <typename T>
  Map map_of(const std::vector<T>& v, int channels) const {
    Map m(s_.batch, channels, out_height(), out_width());
    m.v.assign(v.begin(), v.end());
    return m;
  }

  uint32_t floats(int count, float value) { return net_.add(builder::tensor(0, std::vector<float>(size_t(count), value))); }
  std::vector<float> reals() {
    std::vector<float> v(static_cast<size_t>(out()));
    for (float& x : v) x = real();
    return v;
  }
  builder::StepDef clip() {
    const float infinity = std::numeric_limits<float>::infinity();
    return {12, kNoValue, {bits_of(-infinity), bits_of(infinity)}, {}};
  }

  std::vector<int> sums(const std::vector<int>& weight) const { return s_.conv.run(x_, weight, s_.batch, s_.height, s_.width); }
  std::vector<int> random_weight() const {
    std::vector<int> w(s_.conv.weights());
    const int limit = pick(0, 2) ? 128 : 8;
    for (int& v : w) v = s_.binary ? 2 * pick(0, 1) - 1 : pick(-limit, limit - 1);
    return w;
  }
  uint32_t packed(const naive::Conv& conv, const std::vector<int>& weight, bool binary) {
    return net_.add(binary ? builder::tensor(4, conv.pack_bits(weight)) : builder::weights(conv.pack_bytes(weight)));
  }
  builder::NodeDef convolution(const std::vector<int>& weight) {
    const naive::Conv& v = s_.conv;
    const uint32_t w = packed(v, weight, s_.binary);
    const std::string path = "conv" + std::to_string(net_.nodes.size());
    return {s_.binary ? 1u : 2u, path, {operand_}, {}, v.attrs(s_.binary ? v.outside : s_.zero_point), {w}, {}};
  }

  // A map that a step reads: of another convolution of the same input, or one pixel an image of one channel.
  uint32_t real_operand(std::vector<float>* values) {
    values->clear();
    if (pick(0, 3) == 0) {
      const uint32_t one = net_.node(7, {0}, kF32, 1, {}, {net_.add(builder::tensor(1, std::vector<int32_t>{0}))});
      for (int n = 0; n < s_.batch; n++) {
        float most = input_.at(n, 0, 0, 0);
        for (int y = 0; y < s_.height; y++)
          for (int x = 0; x < s_.width; x++) most = std::max(most, input_.at(n, 0, y, x));
        values->insert(values->end(), ints_.size() / size_t(s_.batch), most);
      }
      return net_.node(10, {one}, kF32, 1, {1, 1, 1});
    }
    const std::vector<int> weight = random_weight();
    const std::vector<float> a = reals(), b = reals();
    const std::vector<int> other = sums(weight);
    for (size_t i = 0; i < other.size(); i++) values->push_back(float(other[i]) * a[channel_of(i)] + b[channel_of(i)]);
    builder::NodeDef node = convolution(weight);
    const uint32_t y = net_.value(kF32, uint32_t(out()));
    node.outputs = {y};
    node.steps = {{1, kNoValue, {}, {net_.add(builder::tensor(0, a)), net_.add(builder::tensor(0, b))}}, {7, y, {}, {}}};
    net_.nodes.push_back(node);
    return y;
  }

  builder::StepDef shift(std::vector<int>* v) {
    int most = 1;
    for (int x : *v) most = std::max(most, std::abs(x));
    const int by = pick(0, 3) ? std::ilogb(float(most)) + 1 : pick(0, 3);
    std::vector<int32_t> multiplier, offset;
    for (int c = 0; c < out(); c++) {
      multiplier.push_back(pick(-20, 20));
      offset.push_back(pick(-most, most));
    }
    for (size_t i = 0; i < v->size(); i++) {
      const double scaled = double((*v)[i]) * multiplier[channel_of(i)] + offset[channel_of(i)];
      (*v)[i] = int(std::min(std::max(std::floor(std::ldexp(scaled, -by)), -8.0), 7.0));
    }
    return {5, kNoValue, {by}, {net_.add(builder::tensor(1, multiplier)), net_.add(builder::tensor(1, offset))}};
  }

  uint32_t four_bit_operand(std::vector<int>* values) {
    const std::vector<int> weight = random_weight();
    *values = sums(weight);
    builder::NodeDef node = convolution(weight);
    const uint32_t y = net_.value(kI4, uint32_t(out()));
    node.outputs = {y};
    node.steps = {shift(values), {7, y, {}, {}}};
    net_.nodes.push_back(node);
    return y;
  }

  void step(int code, int cuts) {
    if (integer_ && code == 1) {
      floats_.assign(ints_.begin(), ints_.end());
      integer_ = false;
    }
    switch (code) {
      case 1: {
        const std::vector<float> a = reals(), b = reals();
        for (size_t i = 0; i < floats_.size(); i++) floats_[i] = floats_[i] * a[channel_of(i)] + b[channel_of(i)];
        conv_.steps.push_back({1, kNoValue, {}, {net_.add(builder::tensor(0, a)), net_.add(builder::tensor(0, b))}});
        break;
      }
      case 2:
      case 11: {
        uint32_t y;
        if (integer_) {
          std::vector<int> values;
          y = four_bit_operand(&values);
          for (size_t i = 0; i < ints_.size(); i++) ints_[i] += values[i];
        } else {
          std::vector<float> values;
          y = real_operand(&values);
          for (size_t i = 0; i < floats_.size(); i++)
            floats_[i] = code == 2 ? floats_[i] + values[i] : floats_[i] * values[i];
        }
        conv_.inputs.push_back(y);
        conv_.steps.push_back({uint32_t(code), y, {}, {}});
        break;
      }
      case 3: {
        const std::vector<float> in = reals(), slope = reals(), shifted = reals();
        for (size_t i = 0; i < floats_.size(); i++) {
          const size_t c = channel_of(i);
          const float u = floats_[i] + in[c];
          floats_[i] = (u >= 0.0f ? u : u * slope[c]) + shifted[c];
        }
        conv_.steps.push_back({3, kNoValue, {}, {}});
        for (const auto& v : {in, slope, shifted}) conv_.steps.back().params.push_back(net_.add(builder::tensor(0, v)));
        break;
      }
      case 4: {
        const std::vector<float> slope = reals();
        for (size_t i = 0; i < floats_.size(); i++)
          if (floats_[i] < 0.0f) floats_[i] *= slope[channel_of(i)];
        conv_.steps.push_back({4, kNoValue, {}, {net_.add(builder::tensor(0, slope))}});
        break;
      }
      case 5:
        conv_.steps.push_back(shift(&ints_));
        break;
      case 7:
        store();
        break;
      case 8:
        drawn_threshold(cuts);
        break;
      case 9:
        sign();
        break;
      case 10:
        bytes();
        break;
      case 12:
        conv_.steps.push_back(clip());
        break;
    }
  }

  void store() {
    const uint32_t y = net_.value(integer_ ? kI4 : kF32, uint32_t(out()));
    conv_.steps.push_back({7, y, {}, {}});
    conv_.outputs.push_back(y);
    if (!integer_) return net_.output(y, map_of(floats_, out()));
    // Four bits are read by another convolution's epilogue, which adds them to 0.
    const Map e = map_of(ints_, out());
    readers_.push_back([this, y, e] {
      const uint32_t z = net_.value(kF32, uint32_t(out()));
      const uint32_t none = net_.add(builder::tensor(1, std::vector<int32_t>(size_t(out()), 0)));
      builder::NodeDef node = conv_;
      node.inputs = {operand_, y};
      node.outputs = {z};
      node.steps = {{5, kNoValue, {0}, {none, none}},
                    {2, y, {}, {}},
                    {1, kNoValue, {}, {floats(out(), 1.0f), floats(out(), 0.0f)}},
                    {7, z, {}, {}}};
      net_.nodes.push_back(node);
      net_.output(z, e);
    });
  }

  // What thresholds have: 0 lower limits, 1 upper limits, 2 either of them, 3 anything; 4 and 5 as 0 and 1, beside a second limit
  // that no sum is beyond.
  void drawn_threshold(int cuts) {
    const naive::Conv& v = s_.conv;
    const int taps = v.taps() * v.group();
    const size_t pixels = size_t(out_height() * out_width());
    std::vector<int32_t> low, high;
    std::vector<uint8_t> flip;
    const bool second = cuts >= 4, reached = pick(0, 1);
    for (int c = 0; c < out(); c++) {
      auto cut = [&] {
        if (pick(0, 7) == 0)
          return one_of<int32_t>({kLeast, kLeast + 1, -32769, -32768, -32767, -32766, -taps - 1, -taps, 0, taps, taps + 1, 32766,
                                  32767, 32768, kMost - 1, kMost});
        const size_t image = size_t(pick(0, s_.batch - 1)) * size_t(out());
        return ints_[(image + size_t(c)) * pixels + size_t(pick(0, int(pixels) - 1))] + pick(-2, 2);
      };
      const int kind = cuts == 2 ? pick(0, 1) : cuts == 3 ? pick(0, 2) : cuts % 4;
      low.push_back(kind != 1 ? cut() : second ? (reached ? -taps : -32766) : one_of<int32_t>({kLeast, kLeast, -32768, -32767}));
      high.push_back(kind != 0 ? cut() : second ? (reached ? taps : 32766) : one_of<int32_t>({kMost, kMost, 32768, 32767}));
      flip.push_back(uint8_t(pick(0, 1)));
    }
    threshold(low, high, flip);
  }

  void sign() {
    std::vector<float> cut;
    std::vector<int> bits;
    const size_t pixels = size_t(out_height() * out_width());
    for (int c = 0; c < out(); c++)
      cut.push_back(pick(0, 1) ? floats_[size_t(c) * pixels + size_t(pick(0, int(pixels) - 1))] : real());
    for (size_t i = 0; i < floats_.size(); i++) bits.push_back(floats_[i] >= cut[channel_of(i)] ? 1 : -1);
    const uint32_t b = net_.value(kB1, uint32_t(out()));
    conv_.steps.push_back({9, b, {}, {net_.add(builder::tensor(0, cut))}});
    conv_.outputs.push_back(b);
    read_bits(b, bits);
  }

  void bytes() {
    float most = 1.0f;
    for (float v : floats_) most = std::max(most, std::fabs(v));
    const float scale = 200.0f / most;
    const int levels = one_of<int>({255, 255, 15, pick(1, 254)}), zero_point = one_of<int>({0, levels, pick(0, levels)});
    std::vector<int> q;
    for (float v : floats_)
      q.push_back(int(std::min(std::max(std::nearbyint(v * scale) + float(zero_point), 0.0f), float(levels))) - zero_point);
    const uint32_t y = net_.value(kU8, uint32_t(out()));
    conv_.steps.push_back({10, y, {bits_of(scale), zero_point, levels}, {}});
    conv_.outputs.push_back(y);
    readers_.push_back([this, y, q, zero_point] {
      read({out(), out(), 1, 1, 1, 1, 0, 0, 1, 1, out(), 0}, false, zero_point, y, q);
      if (pick(0, 1)) read({out(), 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, false, zero_point, y, q);
    });
  }

  // Each bit by itself, and all of them as the taps of a convolution, which sees what stands around the pixels too.
  void read_bits(uint32_t b, const std::vector<int>& bits) {
    readers_.push_back([this, b, bits] {
      net_.output(net_.pointwise(b, out(), {}), map_of(bits, out()));
      if (around_ == kAny && pick(0, 1)) return;
      read({out(), 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, around_ == kAny ? pick(-1, 1) : around_}, true, 0, b, bits);
    });
  }

  void read(const naive::Conv& conv, bool binary, int zero_point, uint32_t value, const std::vector<int>& x) {
    std::vector<int> weight(conv.weights());
    for (int& w : weight) w = binary ? 2 * pick(0, 1) - 1 : conv.groups > 1 ? 1 : pick(-128, 127);
    const uint32_t w = packed(conv, weight, binary);
    const uint32_t y = net_.node(binary ? 1 : 2, {value}, kF32, conv.out, conv.attrs(binary ? conv.outside : zero_point), {w});
    net_.nodes.back().steps = {{1, kNoValue, {}, {floats(conv.out, 1.0f), floats(conv.out, 0.0f)}}, {7, y, {}, {}}};
    net_.output(y, map_of(conv.run(x, weight, s_.batch, out_height(), out_width()), conv.out));
  }

  const Shape s_;
  Network net_;
  Map input_;
  std::vector<int> x_;
  uint32_t operand_ = 0;
  builder::NodeDef conv_;
  std::vector<int> ints_;
  std::vector<float> floats_;
  bool integer_ = true;
  static constexpr int kAny = 2;
  int around_ = kAny;
  std::vector<std::function<void()>> readers_;
};

// Sums as they are.
void check_sums(const Shape& s, const std::vector<int>& x, const std::vector<int>& weight, const std::string& name) {
  Layer layer(s, x, weight);
  layer.steps({1, 7}, 0);
  layer.check(threads(), name);
}

size_t elements(const Shape& s) { return size_t(s.batch * s.conv.channels) * size_t(s.height * s.width); }

// A weight for each channel's all taps, from the least to the largest, at the largest input: sixteen-bit sums of products
// must stop in time. Also pairs of weights that are too heavy only together.
void test_heavy_weights() {
  for (const int width : {1, 40})  // lanes are outputs, or pixels
    for (const int channels : {1, 2, 3, 4, 7, 8, 12, 21, 36})
      for (const int zero_point : {0, 255, 100}) {
        const Shape s = {{channels, 256, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, false, zero_point, 1, 1, width};
        std::vector<int> equal, pairs;
        for (int o = 0; o < 256; o++)
          for (int i = 0; i < channels; i++) {
            equal.push_back(o - 128);
            const int both = o < 128 ? 127 + o % 4 : -126 - o % 4;
            const int share = both > 0 ? pick(both - 127, 127) : pick(-128, both + 128);
            pairs.push_back(i % 2 ? both - pairs.back() : share);
          }
        check_sums(s, std::vector<int>(elements(s), 255), equal, "equal weights");
        check_sums(s, std::vector<int>(elements(s), 255), pairs, "heavy pairs");
      }
}

// Sums of every length around where counts leave a byte, all of whose taps match, or none.
void test_depths() {
  for (const int steps : {1,  2,  3,  4,  5,   6,   7,   8,   61,  62,  63,  64,  65, 66,
                          67, 68, 125, 126, 127, 128, 129, 130, 188, 189, 190, 191, 192})
    for (const int width : {1, 15, 140})
      for (const int groups : {1, 3}) {
        const int channels = 4 * steps - (groups > 1 ? pick(1, 3) : pick(0, 3));
        const int out = groups * pick(1, groups > 1 ? 3 : 9);
        const Shape s = {{channels * groups, out, 1, 1, 1, 1, 0, 0, 1, 1, groups, 0}, true, 0, 1, 1, width};
        std::vector<int> x(elements(s)), weight;
        const int fill = 2 * pick(0, 1) - 1;
        for (int& v : x) v = pick(0, 99) ? fill : -fill;
        for (int o = 0; o < out; o++) weight.insert(weight.end(), size_t(channels), o % 2 ? 1 : -1);
        check_sums(s, x, weight, "depth " + std::to_string(steps));
      }
}

// Cuts at the largest sums that are counted in 16 bits, at the first ones that are not, and at the largest of a file.
void test_cuts_of_large_sums() {
  for (const int width : {7, 24})
    for (const auto& [channels, taps] : {std::pair{10922, 3}, std::pair{4681, 7}, std::pair{8192, 4}, std::pair{21845, 3}}) {
      const int k = channels * taps;
      const Shape s = {{channels, 8, 1, taps, 1, 1, 0, 0, 1, 1, 1, 0}, true, 0, 1, 1, width};
      std::vector<int> weight;
      for (int o = 0; o < 8; o++) weight.insert(weight.end(), size_t(k), o % 2 ? 1 : -1);
      std::vector<int> x(elements(s), 1);
      if (width > 7) x[size_t(pick(8, 16))] = -1;
      const Layer start(s, x, weight);
      for (const int over : {-1, 0, 1, 2, 3}) {
        Layer low = start, high = start;
        const std::vector<int32_t> cuts = {-k - 1 + over, k - 1 + over, -k + 1 - over, k + 1 - over,
                                           kLeast,        kMost,        kLeast + 1,    kMost - 1};
        low.threshold(cuts, std::vector<int32_t>(8, kMost), {0, 0, 1, 1, 0, 1, 0, 1});
        low.check(1, "lower cuts of large sums");
        high.threshold(std::vector<int32_t>(8, kLeast), cuts, {0, 0, 1, 1, 0, 1, 0, 1});
        high.check(2, "upper cuts of large sums");
      }
    }
}

// Bits are written around the image too, and where channels are missing in the last nibble, there only for those that are.
void test_surroundings() {
  for (const int width : {3, 70})
    for (int out = 1; out <= 10; out++)
      for (const int outside : {-1, 0, 1})
        for (const std::vector<int>& steps : {std::vector<int>{8}, {8, 1, 7}, {1, 9}}) {
          const Shape s = {{4, out, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, true, 0, 2, 2, width};
          std::vector<int> x(elements(s)), weight(s.conv.weights());
          for (int& v : x) v = 2 * pick(0, 1) - 1;
          for (int& v : weight) v = 2 * pick(0, 1) - 1;
          Layer layer(s, x, weight);
          layer.surround(outside);
          layer.steps(steps, (out + outside + 1) % 6);
          layer.check(threads(), "surroundings " + std::to_string(outside));
        }
}

// A convolution of `operand`, whose numbers are x, to an output of the network; `pad`: bits outside the image, or the zero point.
void add_reader(Network* net, uint32_t operand, bool binary, int pad, const naive::Conv& conv, const std::vector<int>& x, const Map& input) {
  std::vector<int> weight(conv.weights());
  for (int& w : weight) w = binary ? 2 * pick(0, 1) - 1 : pick(-128, 127);
  const uint32_t packed =
      binary ? net->add(builder::tensor(4, conv.pack_bits(weight))) : net->add(builder::weights(conv.pack_bytes(weight)));
  const uint32_t y = net->node(binary ? 1 : 2, {operand}, kF32, conv.out, conv.attrs(pad), {packed});
  const auto all = [&](float v) { return net->add(builder::tensor(0, std::vector<float>(size_t(conv.out), v))); };
  const uint32_t one = all(1.0f), zero = all(0.0f);
  net->nodes.back().steps = {{1, kNoValue, {}, {one, zero}}, {7, y, {}, {}}};
  Map expected(input.batch, conv.out, conv.out_height(input.height), conv.out_width(input.width));
  const std::vector<int> sums = conv.run(x, weight, input.batch, input.height, input.width);
  expected.v.assign(sums.begin(), sums.end());
  net->output(y, expected);
}

// Convolutions that read one map of bits, each as it wants to see what lies outside: the first may set what stands there for all.
void check_readers(int batch, int height, int width, const std::vector<naive::Conv>& readers, const std::string& name) {
  const int channels = readers[0].channels;
  Network net(channels);
  Map input(batch, channels, height, width);
  std::vector<int> x;
  for (float& v : input.v) v = float(2 * pick(0, 1) - 1);
  for (float v : input.v) x.push_back(int(v));
  const uint32_t bits = net.sign(0, channels);
  for (const naive::Conv& conv : readers) add_reader(&net, bits, true, conv.outside, conv, x, input);
  net.check(input, threads(), name);
}

// Strided and unpadded convolutions beside those of the map's own resolution, which give it a halo.
void test_readers() {
  const auto conv = [](int channels, int out, int kernel, int stride, int pad, int outside) {
    return naive::Conv{channels, out, kernel, kernel, stride, stride, pad, pad, 1, 1, 1, outside};
  };
  const std::vector<std::pair<int, int>> sizes = {{7, 7}, {8, 9}, {14, 14}, {17, 15}, {9, 28}};
  for (const int first : {-1, 0, 1})
    for (const int second : {-1, 0, 1})
      for (const auto& size : sizes) {
        const int channels = one_of<int>({64, 66, 130, 256}), out = one_of<int>({16, 61, 64});
        const naive::Conv strided = conv(channels, out, 3, 2, 1, first), same = conv(channels, out, 3, 1, 1, second);
        const std::string name = "readers " + std::to_string(first) + " " + std::to_string(second) + " of " + std::to_string(channels) +
                                 " channels " + std::to_string(size.first) + "x" + std::to_string(size.second);
        check_readers(pick(1, 3), size.first, size.second, {strided, same}, name);
        check_readers(1, size.first, size.second, {same, strided}, name + ", the other way round");
        check_readers(1, size.first, size.second, {same, conv(channels, out, 3, 1, 0, 0), conv(channels, out, 1, 2, 0, 0), strided},
                      name + ", and unpadded ones");
      }
  // A result as large as what it is made of, and yet strided.
  check_readers(1, 8, 8, {{64, 64, 3, 3, 1, 2, 6, 5, 6, 1, 1, 0}}, "a stride that keeps the size");
  for (const int outside : {-1, 0, 1}) {
    check_readers(2, 11, 12, {conv(64, 24, 7, 1, 3, outside)}, "seven by seven");
    check_readers(1, 12, 12, {conv(128, 24, 5, 2, 2, outside), conv(128, 24, 5, 1, 2, 0)}, "five by five");
  }
}

// Strided 8-bit convolutions of one image of few channels: with several readers of a copy each finds all of its own pixels there, and
// a lone one may find others' beside them.
void test_image_readers() {
  for (const int channels : {1, 2, 3})
    for (const int readers : {1, 2}) {
      const int height = pick(20, 33), width = pick(20, 33), batch = pick(1, 2), zero_point = pick(0, 255);
      Network net(channels);
      Map input(batch, channels, height, width);
      std::vector<int> x;
      for (float& v : input.v) {
        const int q = pick(0, 255);
        v = float(q - zero_point);
        x.push_back(q - zero_point);
      }
      const uint32_t bytes = net.node(6, {0}, kU8, channels);
      float one = 1.0f;
      int32_t scale;
      std::memcpy(&scale, &one, 4);
      net.nodes.back().steps = {{10, bytes, {scale, zero_point, 255}, {}}};
      for (int reader = 0; reader < readers; reader++) {
        const int kernel = reader ? 3 : 7;
        add_reader(&net, bytes, false, zero_point, {channels, 20, kernel, kernel, 2, 2, kernel / 2, kernel / 2, 1, 1, 1, 0}, x, input);
      }
      net.check(input, threads(), std::to_string(readers) + " readers of " + std::to_string(channels) + " channels");
    }
}

// --- drawn cases ---

Shape draw_shape() {
  Shape s = {};
  naive::Conv& v = s.conv;
  s.binary = pick(0, 2) > 0;
  s.zero_point = s.binary ? 0 : one_of<int>({0, 255, pick(0, 255)});
  v.groups = 1;
  v.kernel_h = v.kernel_w = v.stride_h = v.stride_w = v.dilation_h = v.dilation_w = 1;
  if (s.binary) v.outside = pick(-1, 1);
  int height = 1, width = 1;
  auto three_by_three = [&] {
    v.kernel_h = v.kernel_w = 3;
    v.pad_h = v.pad_w = pick(0, 3) ? 1 : 0;
    v.stride_h = v.stride_w = pick(0, 2) ? 1 : 2;
  };
  switch (pick(0, 2)) {
    case 0: {  // few pixels
      const auto size = one_of<std::pair<int, int>>(
          {{1, 1}, {1, 1}, {1, 3}, {2, 2}, {3, 3}, {1, 14}, {1, 15}, {2, 7}, {4, 6}, {5, 5}});
      height = size.first;
      width = size.second;
      s.batch = pick(0, 1) ? 1 : pick(2, 6);
      v.channels = pick(0, 2) ? pick(1, 20) : one_of<int>({29, 64, 251, 252, 256, 257, 300});
      if (pick(0, 1)) three_by_three();
      v.out = one_of<int>({1, 2, 3, 4, 5, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129});
      if (v.out * v.channels * v.taps() * s.batch * height * width > 1000000) v.out = pick(1, 9);
      break;
    }
    case 1:  // rows whose last tile has any number of vectors
      height = pick(1, 2);
      width = pick(15, 280);
      s.batch = pick(1, 2);
      if (pick(0, 1)) {
        v.kernel_w = 3;
        v.pad_w = 1;
      }
      v.groups = pick(0, 1) ? 1 : pick(2, 3);
      v.channels = v.groups * pick(1, 12);
      v.out = v.groups * one_of<int>({1, 2, 3, 4, 5, 7, 8, 9, 12, 17});
      break;
    default:
      height = pick(4, 9);
      width = pick(4, 9);
      s.batch = pick(1, 3);
      v.groups = pick(0, 2) ? 1 : pick(2, 4);
      v.channels = v.groups * (pick(0, 1) ? pick(1, 12) : pick(20, 40));
      v.out = v.groups * pick(1, 9);
      three_by_three();
  }
  for (int axis = 0; axis < 2; axis++) {
    const int kernel = axis ? v.kernel_w : v.kernel_h, pad = axis ? v.pad_w : v.pad_h, stride = axis ? v.stride_w : v.stride_h;
    const int count = axis ? width : height;
    (axis ? s.width : s.height) = std::max(1, (count - 1) * stride + kernel - 2 * pad + pick(0, stride - 1));
  }
  return s;
}

std::vector<int> draw_input(const Shape& s) {
  std::vector<int> x(elements(s));
  const int kind = pick(0, 4), low = s.binary ? -1 : 0, high = s.binary ? 1 : 255;
  for (int& v : x) v = kind == 0 ? high : kind == 1 ? low : kind == 2 || s.binary ? (pick(0, 1) ? high : low) : pick(low, high);
  return x;
}

std::vector<int> draw_weight(const Shape& s) {
  std::vector<int> w(s.conv.weights());
  const size_t row = w.size() / size_t(s.conv.out);
  const int kind = pick(0, 4), limit = pick(1, 127);
  for (size_t o = 0; o < size_t(s.conv.out); o++) {
    const int own = pick(1, limit), sign = pick(0, 1) ? 1 : -1;
    for (size_t i = o * row; i < (o + 1) * row; i++) {
      if (s.binary)
        w[i] = kind == 0 ? sign : 2 * pick(0, 1) - 1;
      else if (kind == 0)  // light, of one sign: runs of every length
        w[i] = sign * pick(0, own);
      else if (kind == 1)
        w[i] = pick(-own, own);
      else if (kind == 2)
        w[i] = pick(0, 1) ? 127 : -128;
      else
        w[i] = kind == 3 ? (sign > 0 ? 127 : -128) : pick(-128, 127);
    }
  }
  return w;
}

// Those that are compiled as one, the same with a step more or less, and any others.
std::vector<int> draw_steps() {
  static const std::vector<std::vector<int>> chains = {{1, 2, 3, 9, 7}, {1, 2, 3, 7}, {5, 7}, {5, 2, 8}, {8}, {8}, {8, 1, 7}, {1, 7},
                                                       {1, 4, 7, 1, 2, 7}, {1, 2, 4, 10}, {8, 1, 4, 10}};
  std::vector<int> steps = one_of(chains);
  const int kind = pick(0, 3);
  if (kind == 0) {  // ends differently
    const auto affine = std::find(steps.begin(), steps.end(), 1);
    if (affine == steps.end())
      steps.insert(steps.end(), {8, 1, 10});
    else
      steps.insert(affine + pick(1, int(steps.end() - affine)), 12);
  } else if (kind == 1) {
    steps.clear();
    for (int i = pick(0, 3); i > 0; i--) steps.push_back(8);
    if (pick(0, 1)) {
      steps.push_back(5);
      bool four_bits = true;  // or it may not be stored
      for (int i = pick(0, 3); i > 0; i--) {
        const int code = one_of<int>({2, 5, 7, 8});
        if (code == 7 && !four_bits) steps.push_back(5);
        four_bits = code == 5 || code == 7 || (code == 8 && four_bits);
        steps.push_back(code);
      }
    }
    steps.push_back(1);
    while (steps.size() < 11 && pick(0, 4)) steps.push_back(one_of<int>({1, 2, 3, 4, 7, 9, 10, 11, 12}));
    steps.push_back(one_of<int>({7, 9, 10}));
  }
  return steps;
}

void test_drawn(const std::string& name) {
  const Shape s = draw_shape();
  const std::vector<int> x = draw_input(s), weight = draw_weight(s);
  Layer layer(s, x, weight);
  const std::vector<int> steps = draw_steps();
  layer.steps(steps, pick(0, 5));
  std::string text = name + " steps";
  for (int code : steps) text += " " + std::to_string(code);
  layer.check(threads(), text);
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 400, seed = argc > 2 ? std::atol(argv[2]) : 1;
  if (count < 1 || seed < 0) {
    std::fprintf(stderr, "usage: test_paths [cases [seed]]\n");
    return 2;
  }
  if (argc < 3) {
    test_heavy_weights();
    test_depths();
    test_cuts_of_large_sums();
    test_surroundings();
    test_readers();
    test_image_readers();
  }
  for (long i = 0; i < count; i++) {
    rng.seed(uint32_t(seed + i));
    test_drawn("seed " + std::to_string(seed + i));
  }
  return check::report();
}
