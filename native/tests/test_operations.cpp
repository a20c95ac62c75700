// Every operation but the convolutions against plain loops written after docs/numerics.md, bit for bit, over random
// shapes, batches and threads, on every instruction set of this machine.
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "maps.h"
#include "naive.h"

using maps::kB1;
using maps::kF32;
using maps::kNoValue;
using maps::Map;
using maps::Network;

namespace {

std::mt19937 rng(11);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

// Now and then a value that only a careful kernel treats right.
float random_value() {
  static const float special[] = {0.0f, -0.0f, 1e-40f, -3e38f, 3e38f};
  if (pick(0, 15) == 0) return special[pick(0, 4)];
  return std::normal_distribution<float>(0.0f, 2.0f)(rng);
}

Map random_map(int n, int c, int h, int w) {
  return maps::make(n, c, h, w, [](int, int, int, int) { return random_value(); });
}

Map signs(const Map& m) {
  Map s = m;
  for (float& v : s.v) v = v >= 0.0f ? 1.0f : -1.0f;
  return s;
}

std::string shape_of(const Map& m) {
  return std::to_string(m.batch) + "x" + std::to_string(m.channels) + "x" + std::to_string(m.height) + "x" + std::to_string(m.width);
}

Map convolved(const naive::Conv& conv, const Map& m, const std::vector<int>& weight) {
  const std::vector<int> sums = conv.run(std::vector<int>(m.v.begin(), m.v.end()), weight, m.batch, m.height, m.width);
  Map y(m.batch, conv.out, conv.out_height(m.height), conv.out_width(m.width));
  y.v.assign(sums.begin(), sums.end());
  return y;
}

// Bits come out as real values, and through a convolution that sees their halo and the channels that pad their nibbles.
void output_bits(Network& net, uint32_t bits, const Map& e) {
  net.output(net.pointwise(bits, e.channels, {}), e);
  const naive::Conv conv = {e.channels, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, pick(-1, 1)};
  std::vector<int> weight(conv.weights());
  for (int& w : weight) w = 2 * pick(0, 1) - 1;
  const uint32_t w = net.add(builder::tensor(4, conv.pack_bits(weight)));
  const uint32_t one = net.add(builder::tensor(0, std::vector<float>(3, 1.0f)));
  const uint32_t zero = net.add(builder::tensor(0, std::vector<float>(3, 0.0f)));
  const uint32_t y = net.node(1, {bits}, kF32, 3, conv.attrs(conv.outside), {w});
  net.nodes.back().steps = {{1, kNoValue, {}, {one, zero}}, {7, y, {}, {}}};
  net.output(y, convolved(conv, e, weight));
}

// A network of one operation on the input, or on its signs as bits.
struct OneLayer {
  Network net;
  Map input, seen;  // `seen`: what the operation reads
  uint32_t x = 0;
  bool bits;

  OneLayer(const Map& m, bool as_bits) : net(m.channels), input(m), seen(as_bits ? signs(m) : m), bits(as_bits) {
    if (bits) x = net.sign(0, m.channels);
  }
  uint32_t type() const { return bits ? kB1 : kF32; }
  void check(uint32_t y, const Map& e, const std::string& name) {
    if (bits)
      output_bits(net, y, e);
    else
      net.output(y, e);
    net.check(input, pick(1, 3), name + (bits ? " of bits " : " ") + shape_of(input));
  }
};

Map random_input(int channels) { return random_map(pick(1, 4), channels, pick(1, 20), pick(1, 20)); }

// --- channels ---

void test_channels() {
  const bool bits = pick(0, 1);
  OneLayer layer(random_input(pick(1, 14)), bits);
  // A second source: other channels of the first, so that indices reach over several inputs.
  const int c = layer.input.channels, second = pick(1, 9);
  std::vector<int32_t> choice;
  for (int i = 0; i < second; i++) choice.push_back(pick(0, c - 1));
  const Map& in = layer.seen;
  const Map other = maps::make(in.batch, second, in.height, in.width,
                               [&](int n, int i, int y, int x) { return in.at(n, choice[size_t(i)], y, x); });
  const uint32_t o = layer.net.node(7, {layer.x}, layer.type(), second, {}, {layer.net.add(builder::tensor(1, choice))});
  std::vector<int32_t> index;
  const int kind = pick(0, 2), count = kind ? c + second : pick(1, 20);
  for (int i = 0; i < count; i++)
    index.push_back(kind == 0 ? pick(0, c + second - 1) : kind == 1 ? i : count - 1 - i);  // any, joined, reversed
  const Map e = maps::make(in.batch, count, in.height, in.width, [&](int n, int i, int y, int x) {
    const int from = index[size_t(i)];
    return from < c ? in.at(n, from, y, x) : other.at(n, from - c, y, x);
  });
  const uint32_t y = layer.net.node(7, {layer.x, o}, layer.type(), count, {}, {layer.net.add(builder::tensor(1, index))});
  layer.check(y, e, "channels");
}

// --- resize, pixel shuffle ---

struct Weight {
  int from, next;
  float far, near;
};

Weight bilinear_weight(int i, int size, int to, bool align) {
  double s;
  if (align)
    s = to == 1 ? 0.0 : i * (double(size - 1) / double(to - 1));
  else
    s = std::fmax(0.0, (i + 0.5) * (double(size) / double(to)) - 0.5);
  const int from = int(std::fmin(std::floor(s), double(size - 1)));
  return {from, std::min(from + 1, size - 1), float(s - from), float(1.0 - (s - from))};
}

int nearest(int i, int size, int to) {
  const float step = float(size) / float(to);
  const float at = float(i) * step;
  return std::min(int(at), size - 1);
}

Map resized(const Map& m, int height, int width, bool bilinear, bool align) {
  return maps::make(m.batch, m.channels, height, width, [&](int n, int c, int y, int x) {
    if (!bilinear) return m.at(n, c, nearest(y, m.height, height), nearest(x, m.width, width));
    const Weight r = bilinear_weight(y, m.height, height, align), k = bilinear_weight(x, m.width, width, align);
    const float upper_left = m.at(n, c, r.from, k.from) * k.near, upper_right = m.at(n, c, r.from, k.next) * k.far;
    const float lower_left = m.at(n, c, r.next, k.from) * k.near, lower_right = m.at(n, c, r.next, k.next) * k.far;
    const float top = upper_left + upper_right, bottom = lower_left + lower_right;
    const float upper = top * r.near, lower = bottom * r.far;
    return upper + lower;
  });
}

void test_resize() {
  const bool bits = pick(0, 1), bilinear = !bits && pick(0, 2), align = bilinear && pick(0, 1);
  OneLayer layer(random_input(pick(1, 9)), bits);
  const Map& in = layer.seen;
  std::vector<uint32_t> inputs = {layer.x};
  std::vector<int32_t> attrs = {bilinear, align, 0, 0, 0, 0};
  int height, width;
  switch (pick(0, 2)) {
    case 0:
      attrs[2] = pick(1, 4);
      attrs[3] = pick(1, 4);
      height = in.height * attrs[2];
      width = in.width * attrs[3];
      break;
    case 1:
      attrs[4] = height = pick(1, 40);
      attrs[5] = width = pick(1, 40);
      break;
    default: {  // the size of another map, of another type
      height = pick(1, 30);
      width = pick(1, 30);
      const uint32_t real = layer.net.node(8, {0}, kF32, in.channels, {0, 0, 0, 0, height, width});
      inputs.push_back(layer.net.sign(real, in.channels));
    }
  }
  layer.check(layer.net.node(8, inputs, layer.type(), in.channels, attrs), resized(in, height, width, bilinear, align),
              std::string(bilinear ? "bilinear " : "nearest ") + std::to_string(height) + "x" + std::to_string(width));
}

// Sizes between which exact integers read other rows and columns than float32 does.
void test_nearest_rounds_as_float32() {
  for (const bool bits : {false, true})
    for (const auto& [size, to] : {std::pair{4, 82}, std::pair{16, 110}, std::pair{15, 185}}) {
      const Map image = maps::make(1, 3, size, size, [&](int, int c, int y, int x) {
        return float((y * size + x + c) % 7) - 3;
      });
      OneLayer layer(image, bits);
      const std::string what = "nearest " + std::to_string(size) + " to " + std::to_string(to);
      layer.check(layer.net.node(8, {layer.x}, layer.type(), 3, {0, 0, 0, 0, to, to}),
                  resized(layer.seen, to, to, false, false), what);
    }
}

void test_pixel_shuffle() {
  const int f = pick(1, 4);
  OneLayer layer(random_input(f * f * pick(1, 6)), pick(0, 1));
  const Map& in = layer.seen;
  const Map e = maps::make(in.batch, in.channels / (f * f), in.height * f, in.width * f, [&](int n, int c, int y, int x) {
    return in.at(n, c * f * f + y % f * f + x % f, y / f, x / f);
  });
  layer.check(layer.net.node(9, {layer.x}, layer.type(), e.channels, {f}), e, "pixel_shuffle " + std::to_string(f));
}

// --- pooling ---

struct Axis {
  int kernel, stride, pad, dilation;
  bool ceil_mode;

  int count(int size) const {
    const int room = size + 2 * pad - dilation * (kernel - 1) - 1;
    int n = int(ceil_mode ? std::ceil(double(room) / stride) : std::floor(double(room) / stride)) + 1;
    if (ceil_mode && (n - 1) * stride > size + pad - 1) n--;
    return n;
  }
  int tap(int i, int k) const { return i * stride - pad + k * dilation; }
  bool inside(int i, int k, int size) const { return tap(i, k) >= 0 && tap(i, k) < size; }
};

Axis random_axis(int size, bool dilated, bool ceil_mode) {
  while (true) {
    Axis a;
    a.kernel = pick(1, 5);
    a.stride = pick(1, 4);
    a.pad = pick(0, a.kernel - 1);
    a.dilation = dilated ? pick(1, 3) : 1;
    a.ceil_mode = ceil_mode;
    if (a.count(size) >= 1) return a;
  }
}

Map max_pooled(const Map& m, const Axis& r, const Axis& k) {
  return maps::make(m.batch, m.channels, r.count(m.height), k.count(m.width), [&](int n, int c, int y, int x) {
    float best = -std::numeric_limits<float>::infinity();
    for (int j = 0; j < k.kernel; j++)
      for (int i = 0; i < r.kernel; i++) {
        if (!r.inside(y, i, m.height) || !k.inside(x, j, m.width)) continue;
        const float v = m.at(n, c, r.tap(y, i), k.tap(x, j));
        best = v > best ? v : best;
      }
    return best;
  });
}

void test_max_pool() {
  const bool bits = pick(0, 1), ceil_mode = pick(0, 1);
  OneLayer layer(random_input(pick(1, 9)), bits);
  const Map& in = layer.seen;
  if (!bits && pick(0, 3) == 0) layer.input.v[0] = layer.seen.v[0] = NAN;
  const Axis r = random_axis(in.height, true, ceil_mode), k = random_axis(in.width, true, ceil_mode);
  Map e = max_pooled(in, r, k);
  uint32_t flip = kNoValue;
  if (bits) {
    for (float& v : e.v) v = v > 0.0f ? v : -1.0f;  // a window that sees no pixel gives bit 0
    std::vector<uint8_t> flips(size_t(in.channels));
    for (uint8_t& v : flips) v = uint8_t(pick(0, 1));
    e = maps::make(e.batch, e.channels, e.height, e.width,
                   [&](int n, int c, int y, int x) { return flips[size_t(c)] ? -e.at(n, c, y, x) : e.at(n, c, y, x); });
    flip = layer.net.add(builder::tensor(4, flips));
  }
  const std::vector<int32_t> attrs = {r.kernel, k.kernel, r.stride, k.stride, r.pad, k.pad, r.dilation, k.dilation, ceil_mode};
  layer.check(layer.net.node(3, {layer.x}, layer.type(), in.channels, attrs, {flip}), e, "max_pool");
}

void test_avg_pool() {
  const bool ceil_mode = pick(0, 1), include_pad = pick(0, 1);
  OneLayer layer(random_input(pick(1, 6)), false);
  const Map& in = layer.seen;
  Axis r = random_axis(in.height, false, ceil_mode), k = random_axis(in.width, false, ceil_mode);
  if (pick(0, 2) == 0 && in.height >= r.kernel && in.width >= k.kernel) r.pad = k.pad = 0;
  const Map e = maps::make(in.batch, in.channels, r.count(in.height), k.count(in.width), [&](int n, int c, int y, int x) {
    float sum = 0.0f;
    int taps = 0;
    for (int i = 0; i < r.kernel; i++)
      for (int j = 0; j < k.kernel; j++) {
        const bool inside = r.inside(y, i, in.height) && k.inside(x, j, in.width);
        if (inside) sum += in.at(n, c, r.tap(y, i), k.tap(x, j));
        taps += inside || (include_pad && r.tap(y, i) < in.height + r.pad && k.tap(x, j) < in.width + k.pad);
      }
    return sum * (1.0f / float(taps));
  });
  const std::vector<int32_t> attrs = {r.kernel, k.kernel, r.stride, k.stride, r.pad, k.pad, ceil_mode, include_pad};
  layer.check(layer.net.node(4, {0}, kF32, in.channels, attrs), e, "avg_pool");
}

Map adaptive_pooled(const Map& m, int height, int width, bool take_max) {
  return maps::make(m.batch, m.channels, height, width, [&](int n, int c, int y, int x) {
    const int top = y * m.height / height, bottom = ((y + 1) * m.height + height - 1) / height;
    const int left = x * m.width / width, right = ((x + 1) * m.width + width - 1) / width;
    float sum = 0.0f, best = -std::numeric_limits<float>::infinity();
    for (int i = top; i < bottom; i++)
      for (int j = left; j < right; j++) {
        const float v = m.at(n, c, i, j);
        sum += v;
        best = v > best ? v : best;
      }
    return take_max ? best : sum * (1.0f / float((bottom - top) * (right - left)));
  });
}

void test_adaptive_pool() {
  OneLayer layer(random_input(pick(1, 6)), false);
  const Map& in = layer.seen;
  const int height = pick(1, 9), width = pick(1, 9), take_max = pick(0, 1);
  layer.check(layer.net.node(10, {0}, kF32, in.channels, {height, width, take_max}),
              adaptive_pooled(in, height, width, take_max), "adaptive_pool " + std::to_string(height) + "x" + std::to_string(width));
}

// Few rows to many: a window of rows stands for several rows of the result, across images, planes and bands.
void test_adaptive_pool_to_more_rows() {
  for (const int take_max : {0, 1})
    for (const int rows : {1, 2, 7, 64}) {
      OneLayer layer(random_map(3, 5, rows, 4), false);
      layer.check(layer.net.node(10, {0}, kF32, 5, {67, 3, take_max}), adaptive_pooled(layer.seen, 67, 3, take_max),
                  "adaptive_pool " + std::to_string(rows) + " to 67 rows");
    }
}

void test_global_pool() {
  OneLayer layer(random_input(pick(1, 9)), pick(0, 1));
  const Map& in = layer.seen;
  const Map e = maps::make(in.batch, in.channels, 1, 1, [&](int n, int c, int, int) {
    float s[16] = {};
    for (int y = 0; y < in.height; y++)
      for (int x = 0; x < in.width; x++) s[x % 16] += in.at(n, c, y, x);
    for (int half = 8; half; half /= 2)
      for (int j = 0; j < half; j++) s[j] += s[j + half];
    return s[0] / float(in.height * in.width);
  });
  const uint32_t y = layer.net.node(5, {layer.x}, kF32, in.channels);
  layer.net.output(y, e);
  layer.net.check(layer.input, pick(1, 3), "global_avg_pool " + shape_of(in));
}

// --- steps of an epilogue ---

float clipped(float v, float minimum, float maximum) {
  if (v < minimum) v = minimum;
  if (v > maximum) v = maximum;
  return v;
}

// docs/numerics.md, one rounding a line.
float sigmoid(float v) {
  if (std::isnan(v)) return v;
  const float a = std::fmin(std::fabs(v), 87.0f);
  const float scaled = a * -1.44269504f;
  const float k = std::rint(scaled);
  const float high = k * 0.693359375f, low = k * -2.12194440e-4f;
  float r = -a - high;
  r = r - low;
  float p = 1.9875691500e-4f;
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    const float product = p * r;
    p = product + c;
  }
  const float square = r * r, product = p * square, sum = product + r;
  const float e = std::ldexp(sum + 1.0f, int(k)), whole = 1.0f + e;
  return (v >= 0.0f ? 1.0f : e) / whole;
}

// A value that a step reads: a map of the result's channels or of one, of its size or of one pixel.
void test_broadcast() {
  const bool many = pick(0, 2) == 0;  // images so small that a tile of positions spans many
  const Map in = many ? random_map(pick(20, 150), pick(1, 5), pick(1, 3), pick(1, 3)) : random_input(pick(1, 9));
  Network net(in.channels);
  const bool bits = pick(0, 2) == 0;
  uint32_t x = bits ? net.sign(0, in.channels) : 0;
  Map e = bits ? signs(in) : in;
  std::vector<builder::StepDef> steps;
  std::vector<uint32_t> others;
  for (int i = pick(1, 3); i > 0; i--) {
    uint32_t v = 0;
    Map other = in;
    if (pick(0, 1)) {
      const int c = pick(0, in.channels - 1);
      v = net.node(7, {v}, kF32, 1, {}, {net.add(builder::tensor(1, std::vector<int32_t>{c}))});
      other = maps::make(in.batch, 1, in.height, in.width, [&](int n, int, int y, int z) { return in.at(n, c, y, z); });
    }
    if (pick(0, 1)) {
      v = net.node(10, {v}, kF32, other.channels, {1, 1, 1});
      other = adaptive_pooled(other, 1, 1, true);
    }
    const bool product = pick(0, 1);
    steps.push_back({product ? 11u : 2u, v, {}, {}});
    others.push_back(v);
    e = maps::make(e.batch, e.channels, e.height, e.width, [&](int n, int c, int y, int z) {
      const bool pixel = other.height == 1 && other.width == 1;
      const float o = other.at(n, other.channels == 1 ? 0 : c, pixel ? 0 : y, pixel ? 0 : z);
      return product ? e.at(n, c, y, z) * o : e.at(n, c, y, z) + o;
    });
  }
  net.output(net.pointwise(x, in.channels, steps, others), e);
  net.check(in, pick(1, 3), "broadcast " + shape_of(in));
}

// The same behind a convolution, whose sums are integers until the first real step.
void test_gated_convolution() {
  const Map in = signs(random_input(pick(1, 9)));
  Network net(in.channels);
  const int stride = pick(1, 2);
  const naive::Conv conv = {in.channels, pick(1, 11), 3, 3, stride, stride, 1, 1, 1, 1, 1, 0};
  std::vector<int> weight(conv.weights());
  for (int& w : weight) w = 2 * pick(0, 1) - 1;
  const size_t out = size_t(conv.out);
  const uint32_t bits = net.sign(0, in.channels), w = net.add(builder::tensor(4, conv.pack_bits(weight)));
  const uint32_t scale = net.add(builder::tensor(0, std::vector<float>(out, 0.25f)));
  const uint32_t bias = net.add(builder::tensor(0, std::vector<float>(out, 0.5f)));
  const uint32_t one = net.node(7, {0}, kF32, 1, {}, {net.add(builder::tensor(1, std::vector<int32_t>{0}))});
  const uint32_t gate = net.node(10, {one}, kF32, 1, {1, 1, 0});
  const uint32_t y = net.node(1, {bits, gate}, kF32, conv.out, conv.attrs(0), {w});
  net.nodes.back().steps = {{1, kNoValue, {}, {scale, bias}},
                            {11, gate, {}, {}},
                            {12, kNoValue, {maps::bits_of(-0.75f), maps::bits_of(6.0f)}, {}},
                            {13, kNoValue, {}, {}},
                            {7, y, {}, {}}};
  const Map mean = adaptive_pooled(in, 1, 1, false);
  const Map sums = convolved(conv, in, weight);
  const Map e = maps::make(sums.batch, sums.channels, sums.height, sums.width, [&](int n, int c, int i, int j) {
    const float v = sums.at(n, c, i, j) * 0.25f + 0.5f;
    return sigmoid(clipped(v * mean.at(n, 0, 0, 0), -0.75f, 6.0f));
  });
  net.output(y, e);
  net.check(in, pick(1, 3), "a gated convolution " + shape_of(in));
}

std::vector<float> telling_values() {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0.0f, -0.0f, NAN, -NAN, infinity, -infinity, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN,
                               FLT_TRUE_MIN, -FLT_TRUE_MIN, 1e-20f, -1e-20f, 1.0f, -1.0f, 87.0f, -87.0f, 88.0f, -88.0f, 103.9f, -104.0f};
  for (float v : {86.0f, 87.0f, 0.34657359f, 0.5f})  // their neighbours on both sides
    for (int i = 0; i < 40; i++) {
      v = std::nextafter(v, 1000.0f);
      values.push_back(v);
      values.push_back(-v);
    }
  while (values.size() < 100000) {
    const uint32_t bits = uint32_t(rng());
    float v;
    std::memcpy(&v, &bits, 4);
    values.push_back(v);
    values.push_back(std::uniform_real_distribution<float>(-100.0f, 100.0f)(rng));
  }
  return values;
}

void test_gates() {
  const std::vector<float> values = telling_values();
  Map in(1, 1, 1, int(values.size()));
  in.v = values;
  Network net(1);
  Map e = in;
  double worst = 0;
  for (float& v : e.v) {
    const double exact = 1.0 / (1.0 + std::exp(-double(v)));
    v = sigmoid(v);
    if (exact > 1e-37) worst = std::fmax(worst, std::fabs(double(v) - exact) / exact);
  }
  check::that(worst < 3e-7, "sigmoid: a relative error of " + std::to_string(worst));
  net.output(net.pointwise(0, 1, {{13, kNoValue, {}, {}}}), e);
  const float infinity = std::numeric_limits<float>::infinity();
  const float limits[][2] = {{0.0f, 6.0f}, {-1.0f, 1.0f}, {-infinity, 0.5f}, {-0.0f, infinity}, {0.0f, -0.0f}, {2.0f, 2.0f}};
  for (const auto& l : limits) {
    e = in;
    for (float& v : e.v) v = clipped(v, l[0], l[1]);
    net.output(net.pointwise(0, 1, {{12, kNoValue, {maps::bits_of(l[0]), maps::bits_of(l[1])}, {}}}), e);
  }
  net.check(in, 2, "gates");
}

}  // namespace

// An argument: how many random cases of each.
int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 60;
  test_gates();
  test_nearest_rounds_as_float32();
  test_adaptive_pool_to_more_rows();
  for (int i = 0; i < rounds; i++) {
    test_channels();
    test_resize();
    test_pixel_shuffle();
    test_max_pool();
    test_avg_pool();
    test_adaptive_pool();
    test_global_pool();
    test_broadcast();
    test_gated_convolution();
  }
  return check::report();
}
