// Integer programs against plain loops in 64 bits, over random shapes, steps, batches and threads, on every instruction set of
// this machine: the operations and steps that neither multiply nor know real numbers.
//
//   test_integer [cases [seed]]
//
// Case i is drawn from seed + i, which a mismatch prints: `test_integer 1 SEED` runs it alone.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "maps.h"
#include "naive.h"

using maps::kB1;
using maps::kF32;
using maps::kI16;
using maps::kI32;
using maps::kNoValue;
using maps::kU8;
using maps::Map;
using maps::Network;

namespace {

std::mt19937 rng(1);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }
template <typename T>
T one_of(const std::vector<T>& choices) {
  return choices[size_t(pick(0, int(choices.size()) - 1))];
}

int64_t sat16(int64_t v) { return std::min<int64_t>(std::max<int64_t>(v, -32768), 32767); }
int64_t wrapped(int64_t v) { return int32_t(uint32_t(v)); }
int64_t shift(int64_t v, int k) {
  if (k >= 0) return v * (int64_t(1) << k);
  const int64_t by = int64_t(1) << -k;
  return v >= 0 ? v / by : -((-v + by - 1) / by);
}

// What a value of the network holds.
struct Known {
  uint32_t id = 0, type = kF32;
  int batch = 0, channels = 0, height = 0, width = 0;
  std::vector<int64_t> v;

  int64_t& at(int n, int c, int y, int x) {
    return v[((size_t(n) * size_t(channels) + size_t(c)) * size_t(height) + size_t(y)) * size_t(width) + size_t(x)];
  }
  int64_t at(int n, int c, int y, int x) const { return const_cast<Known*>(this)->at(n, c, y, x); }
  bool inside(int y, int x) const { return y >= 0 && x >= 0 && y < height && x < width; }
  size_t channel_of(size_t i) const { return i / size_t(height * width) % size_t(channels); }
};
Known shaped(int n, int c, int h, int w) {
  Known k;
  k.batch = n;
  k.channels = c;
  k.height = h;
  k.width = w;
  k.v.resize(size_t(n) * size_t(c) * size_t(h) * size_t(w));
  return k;
}

class Program {
 public:
  Program(int batch, int channels, int height, int width) : net_(channels), input_(batch, channels, height, width) {}

  // The input as integers of 16 bits, or of 8 less the zero point, or as bits.
  Known input(uint32_t type, int greatest) {
    for (float& x : input_.v) x = float(pick(-greatest, greatest)) + 0.25f * float(pick(-1, 1));
    if (pick(0, 3) == 0) input_.v[0] = one_of<float>({1e30f, -1e30f, 32767.5f, -40000.0f});
    Known k = shaped(input_.batch, input_.channels, input_.height, input_.width);
    k.type = type;
    zero_point_ = type == kU8 ? one_of<int>({0, 255, 128, pick(0, 255)}) : 0;
    for (size_t i = 0; i < k.v.size(); i++) {
      const double x = std::nearbyint(double(input_.v[i]));
      if (type == kI16) k.v[i] = int64_t(std::min(std::max(x, -32768.0), 32767.0));
      if (type == kU8) k.v[i] = int64_t(std::min(std::max(x + zero_point_, 0.0), 255.0)) - zero_point_;
      if (type == kB1) k.v[i] = input_.v[i] >= 0.0f ? 1 : -1;
    }
    k.id = net_.node(6, {0}, type, k.channels);
    builder::StepDef step = {10, k.id, {maps::bits_of(1.0f), zero_point_, 255}, {}};
    if (type == kI16) step = {16, k.id, {maps::bits_of(1.0f)}, {}};
    if (type == kB1) step = {9, k.id, {}, {net_.add(builder::tensor(0, std::vector<float>(size_t(k.channels), 0.0f)))}};
    net_.nodes.back().steps = {step};
    return k;
  }

  // A convolution of bits or of integers, with an epilogue of such steps; `codes` as docs/format.md has them.
  std::vector<Known> conv(const Known& x, naive::Conv c, int greatest_weight, const std::vector<int>& codes, const std::vector<Known>& add = {}) {
    std::vector<int> weight(c.weights());
    for (int& w : weight) w = x.type == kB1 || greatest_weight == 0 ? 2 * pick(0, 1) - 1 : pick(0, 4) ? pick(-greatest_weight - (greatest_weight == 127), greatest_weight) : 0;
    Known sum = shaped(x.batch, c.out, c.out_height(x.height), c.out_width(x.width));
    for (int n = 0; n < x.batch; n++)
      for (int o = 0; o < c.out; o++)
        for (int y = 0; y < sum.height; y++)
          for (int xx = 0; xx < sum.width; xx++) {
            int64_t s = 0;
            for (int i = 0; i < c.group(); i++)
              for (int ky = 0; ky < c.kernel_h; ky++)
                for (int kx = 0; kx < c.kernel_w; kx++) {
                  const int iy = y * c.stride_h - c.pad_h + ky * c.dilation_h, ix = xx * c.stride_w - c.pad_w + kx * c.dilation_w;
                  const int64_t seen = x.inside(iy, ix) ? x.at(n, o / (c.out / c.groups) * c.group() + i, iy, ix) : c.outside;
                  s += seen * weight[size_t((o * c.group() + i) * c.taps() + ky * c.kernel_w + kx)];
                }
            sum.at(n, o, y, xx) = wrapped(s);
          }
    const bool bits = x.type == kB1;
    const uint32_t w = net_.add(bits ? builder::tensor(4, c.pack_bits(weight)) : builder::weights(c.pack_bytes(weight)));
    net_.nodes.push_back({bits ? 1u : 11u, "conv" + std::to_string(net_.nodes.size()), {x.id}, {},
                          c.attrs(bits ? c.outside : x.type == kU8 ? zero_point_ : 0), {w}, {}});
    return epilogue(sum, codes, add, bits ? int64_t(c.group()) * c.taps() : 0);
  }

  std::vector<Known> pointwise(const Known& x, const std::vector<int>& codes, const std::vector<Known>& add = {}) {
    net_.nodes.push_back({6, "point" + std::to_string(net_.nodes.size()), {x.id}, {}, {}, {}, {}});
    return epilogue(x, codes, add, 32767);
  }

  Known max_pool(const Known& x, int kernel, int stride, int pad, int dilation) {
    auto count = [&](int size) { return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1; };
    Known y = shaped(x.batch, x.channels, count(x.height), count(x.width));
    for (int n = 0; n < y.batch; n++)
      for (int c = 0; c < y.channels; c++)
        for (int r = 0; r < y.height; r++)
          for (int k = 0; k < y.width; k++) {
            int64_t m = -32768;
            for (int i = 0; i < kernel * kernel; i++) {
              const int iy = r * stride - pad + i / kernel * dilation, ix = k * stride - pad + i % kernel * dilation;
              if (x.inside(iy, ix)) m = std::max(m, x.at(n, c, iy, ix));
            }
            y.at(n, c, r, k) = m;
          }
    y.type = kI16;
    y.id = net_.node(3, {x.id}, kI16, x.channels, {kernel, kernel, stride, stride, pad, pad, dilation, dilation, 0}, {kNoValue});
    return y;
  }

  Known avg_pool(const Known& x, int kernel_h, int kernel_w, int stride_h, int stride_w) {
    Known y = shaped(x.batch, x.channels, (x.height - kernel_h) / stride_h + 1, (x.width - kernel_w) / stride_w + 1);
    int power = 0;
    while (1 << power < kernel_h * kernel_w) power++;
    for (int n = 0; n < y.batch; n++)
      for (int c = 0; c < y.channels; c++)
        for (int r = 0; r < y.height; r++)
          for (int k = 0; k < y.width; k++) {
            int64_t sum = 0;
            for (int i = 0; i < kernel_h; i++)
              for (int j = 0; j < kernel_w; j++) sum += x.at(n, c, r * stride_h + i, k * stride_w + j);
            y.at(n, c, r, k) = shift(sum, -power);
          }
    y.type = kI16;
    y.id = net_.node(4, {x.id}, kI16, x.channels, {kernel_h, kernel_w, stride_h, stride_w, 0, 0, 0, pick(0, 1)});
    return y;
  }

  Known global_sum(const Known& x) {
    Known y = shaped(x.batch, x.channels, 1, 1);
    for (size_t i = 0; i < x.v.size(); i++) y.v[i / size_t(x.height * x.width)] += x.v[i];
    y.type = kI32;
    y.id = net_.node(12, {x.id}, kI32, x.channels, {x.height * x.width});
    return y;
  }

  Known channels(const Known& a, const Known& b) {
    const int count = pick(1, a.channels + b.channels + 2);
    Known y = shaped(a.batch, count, a.height, a.width);
    std::vector<int32_t> index;
    for (int i = 0; i < count; i++) index.push_back(pick(0, a.channels + b.channels - 1));
    for (size_t i = 0; i < y.v.size(); i++) {
      const int from = index[y.channel_of(i)], n = int(i / (size_t(count) * size_t(a.height * a.width)));
      const int pixel = int(i % size_t(a.height * a.width));
      y.v[i] = from < a.channels ? a.at(n, from, 0, pixel) : b.at(n, from - a.channels, 0, pixel);
    }
    y.type = kI16;
    y.id = net_.node(7, {a.id, b.id}, kI16, count, {}, {net_.add(builder::tensor(1, index))});
    return y;
  }

  // Everything can be seen: 16 bits as 32, bits as -1 and 1.
  void output(const Known& k) {
    Map m(k.batch, k.channels, k.height, k.width);
    for (size_t i = 0; i < k.v.size(); i++) m.v[i] = k.type == kB1 ? float(k.v[i]) : maps::float_of(int32_t(k.v[i]));
    if (k.type == kB1) {
      net_.output(net_.pointwise(k.id, k.channels, {}), m);
    } else if (k.type == kI32) {
      net_.output(k.id, m);
    } else {
      const uint32_t y = net_.node(6, {k.id}, kI32, k.channels);
      net_.nodes.back().steps = {{7, y, {}, {}}};
      net_.output(y, m);
    }
  }

  void check(const std::string& name) { net_.check(input_, pick(0, 3) ? 1 : pick(2, 3), name); }

 private:
  // int32 [channels][each] between limits.
  std::vector<int32_t> draw(int channels, int each, int low, int high) {
    std::vector<int32_t> v(size_t(channels * each));
    for (int32_t& x : v) x = pick(low, high);
    return v;
  }
  uint32_t add(const std::vector<int32_t>& v) { return net_.add(builder::tensor(1, v)); }

  // Digits as compilers give them, or anything at all.
  void digits(int channels, int count, int64_t greatest, std::vector<int32_t>* shifts, std::vector<int32_t>* signs) {
    const int kind = pick(0, 3);
    *signs = draw(channels, count, -1, 1);
    *shifts = draw(channels, count, -31, 15);
    if (kind == 0) return;
    const int top = 15 - std::min(15, std::ilogb(double(std::max<int64_t>(1, greatest))));
    for (int c = 0; c < channels; c++)
      for (int d = 0; d < count; d++) {
        const size_t at = size_t(c * count + d);
        // near where sums begin to leave 16 bits; falling, as digits of a factor do
        (*shifts)[at] = std::min(15, std::max(-31, (kind == 1 ? pick(top - 3, top + 1) : pick(-6, 0)) - 2 * d));
        if (kind == 1 && d == 0) (*signs)[at] = pick(0, 3) ? 1 : -1;
      }
  }

  std::vector<Known> epilogue(Known v, const std::vector<int>& codes, const std::vector<Known>& operands, int64_t greatest) {
    std::vector<Known> written;
    size_t next = 0;
    if (!greatest)
      for (int64_t x : v.v) greatest = std::max(greatest, std::abs(x));
    const int channels = v.channels;
    builder::NodeDef node = net_.nodes.back();
    net_.nodes.pop_back();
    for (int code : codes) {
      builder::StepDef step = {uint32_t(code % 100), kNoValue, {}, {}};
      auto write = [&](uint32_t type) {
        v.type = type;
        v.id = step.value = net_.value(type, uint32_t(channels));
        node.outputs.push_back(v.id);
        written.push_back(v);
      };
      switch (code) {
        case 2:
          step.value = operands[next].id;
          node.inputs.push_back(step.value);
          for (size_t i = 0; i < v.v.size(); i++) v.v[i] = sat16(v.v[i] + operands[next].v[i]);
          next++;
          greatest = 32767;
          break;
        case 7:  // as 16 bits; 107 as 32
          write(kI16);
          for (int64_t& x : written.back().v) x = sat16(x);
          break;
        case 107:
          write(kI32);
          break;
        case 8: {
          std::vector<int32_t> low, high;
          std::vector<uint8_t> flip;
          const size_t plane = size_t(v.height * v.width);
          for (int c = 0; c < channels; c++) {
            auto cut = [&] {
              if (pick(0, 5) == 0) return one_of<int32_t>({INT32_MIN, -40000, -32769, -32768, -32767, 0, 32767, 32768, INT32_MAX});
              return int32_t(v.v[size_t(c) * plane + size_t(pick(0, int(plane) - 1))]);
            };
            const int kind = pick(0, 2);
            low.push_back(kind == 0 ? INT32_MIN : cut());
            high.push_back(kind == 1 ? INT32_MAX : cut());
            flip.push_back(uint8_t(pick(0, 1)));
          }
          const Known before = v;
          for (size_t i = 0; i < v.v.size(); i++) {
            const size_t c = v.channel_of(i);
            v.v[i] = (low[c] <= v.v[i] && v.v[i] <= high[c]) != (flip[c] == 1) ? 1 : -1;
          }
          step.params = {add(low), add(high), net_.add(builder::tensor(4, flip))};
          write(kB1);
          v = before;
          break;
        }
        case 14: {
          const int count = pick(1, 4);
          std::vector<int32_t> shifts, signs;
          digits(channels, count, greatest, &shifts, &signs);
          for (size_t i = 0; i < v.v.size(); i++) v.v[i] = shifted(v.v[i], shifts, signs, v.channel_of(i), count);
          step.attrs = {count};
          step.params = {add(shifts), add(signs)};
          greatest = 32767;
          break;
        }
        case 15: {
          const int count = pick(0, 2) ? 1 : pick(1, 4), far = one_of<int>({100, 5000, 32767, 65535});
          std::vector<int32_t> shifts, signs;
          const std::vector<int32_t> in = draw(channels, 1, -far, far), out = draw(channels, 1, -far, far);
          digits(channels, count, pick(0, 1) ? 32768 : 1 << 14, &shifts, &signs);
          for (size_t i = 0; i < v.v.size(); i++) {
            const size_t c = v.channel_of(i);
            const int64_t u = sat16(v.v[i] + in[c]);
            v.v[i] = sat16((u >= 0 ? u : shifted(u, shifts, signs, c, count)) + out[c]);
          }
          step.attrs = {count};
          step.params = {add(in), add(shifts), add(signs), add(out)};
          greatest = 32767;
          break;
        }
        case 17: {
          std::vector<int32_t> bias = draw(channels, 1, -1000, 1000);
          if (pick(0, 2) == 0) bias[0] = one_of<int32_t>({INT32_MIN, INT32_MAX});
          for (size_t i = 0; i < v.v.size(); i++) v.v[i] = wrapped(v.v[i] + bias[v.channel_of(i)]);
          step.params = {add(bias)};
          break;
        }
      }
      node.steps.push_back(step);
    }
    net_.nodes.push_back(node);
    return written;
  }

  static int64_t shifted(int64_t v, const std::vector<int32_t>& shifts, const std::vector<int32_t>& signs, size_t channel, int count) {
    int64_t sum = 0;
    for (size_t d = 0; d < size_t(count); d++)
      sum += signs[channel * size_t(count) + d] * shift(v, shifts[channel * size_t(count) + d]);
    return sat16(sum);
  }

  Network net_;
  Map input_;
  int zero_point_ = 0;
};

naive::Conv random_conv(int channels, int height, int width, bool binary) {
  while (true) {
    naive::Conv c = {channels, pick(1, 20), pick(1, 3), pick(1, 3), pick(1, 2), pick(1, 2), pick(0, 1), pick(0, 1), 1, 1, 1, 0};
    if (pick(0, 3) == 0) c.kernel_h = c.kernel_w = c.stride_h = c.stride_w = 1, c.pad_h = c.pad_w = 0;
    if (pick(0, 5) == 0) c.kernel_h = c.kernel_w = 7, c.stride_h = c.stride_w = 2, c.pad_h = c.pad_w = 3;
    if (pick(0, 5) == 0) c.dilation_h = pick(1, 3), c.dilation_w = pick(1, 3);
    if (pick(0, 5) == 0 && channels % 2 == 0) c.groups = 2, c.out = 2 * pick(1, 10);
    if (binary) c.outside = pick(-1, 1);
    if (c.pad_h >= c.kernel_h * c.dilation_h || c.pad_w >= c.kernel_w * c.dilation_w) continue;
    if (height + 2 * c.pad_h >= c.dilation_h * (c.kernel_h - 1) + 1 && width + 2 * c.pad_w >= c.dilation_w * (c.kernel_w - 1) + 1)
      return c;
  }
}

std::vector<int> random_steps(bool with_add) {
  static const std::vector<std::vector<int>> plain = {
      {14, 7}, {14, 107}, {8}, {107}, {14, 8}, {14, 15, 8, 7}, {14, 15, 7, 8}, {17, 107}, {17, 14, 7}, {7, 14, 8, 17, 107}, {15, 8, 107},
      {14, 14, 7, 15, 15, 8}, {17, 8}};
  static const std::vector<std::vector<int>> adding = {
      {14, 2, 15, 8, 7}, {14, 2, 15, 7, 8}, {14, 2, 15, 7}, {14, 2, 15, 8}, {14, 2, 7}, {14, 2, 8, 7}, {2, 8}, {14, 15, 2, 7}, {2, 17, 2, 7}};
  return one_of(with_add ? adding : plain);
}

void test_layers() {
  const int batch = pick(1, 3), channels = pick(1, 14), height = pick(1, 24), width = pick(0, 7) ? pick(1, 24) : pick(60, 150);
  const uint32_t type = one_of<uint32_t>({kB1, kB1, kI16, kU8});
  Program p(batch, channels, height, width);
  const Known x = p.input(type, one_of<int>({20, 120, 300, 40000}));
  const naive::Conv c = random_conv(channels, height, width, type == kB1);
  const int weights = one_of<int>({0, 1, 7, 127});
  // another layer of that shape first, whose numbers are added
  const Known other = p.conv(x, c, weights, {14, 7})[0];
  p.output(other);
  const std::vector<int> steps = random_steps(pick(0, 1));
  const std::vector<Known> made = p.conv(x, c, weights, steps, {other, other});
  for (const Known& k : made) p.output(k);
  for (const Known& k : p.pointwise(other, random_steps(pick(0, 1)), {other, other})) p.output(k);
  if (made.back().type == kB1 || made.back().type == kI16) {  // what stands in the halo
    const Known& k = made.back();
    p.output(p.conv(k, random_conv(k.channels, k.height, k.width, k.type == kB1), 7, {107})[0]);
  }
  p.check("layers");
}

void test_maps() {
  Program p(pick(1, 3), pick(1, 6), pick(1, 20), pick(1, 40));
  const Known x = p.input(kI16, one_of<int>({100, 20000, 40000}));
  const int kernel = pick(1, 3), dilation = pick(1, 2), pad = pick(0, kernel - 1), reach = (kernel - 1) * dilation + 1;
  if (std::min(x.height, x.width) + 2 * pad >= reach) p.output(p.max_pool(x, kernel, pick(1, 3), pad, dilation));
  const int kh = 1 << pick(0, 2), kw = 1 << pick(0, 2);
  if (kh <= x.height && kw <= x.width) p.output(p.avg_pool(x, kh, kw, pick(1, 3), pick(1, 3)));
  if (x.height >= 2 && x.width >= 2) p.output(p.avg_pool(x, 2, 2, 2, 2));
  p.output(p.channels(x, x));
  const Known sum = p.global_sum(x);
  p.output(sum);
  naive::Conv head = {x.channels, pick(1, 200), 1, 1, 1, 1, 0, 0, 1, 1, 1, 0};
  p.output(p.conv(sum, head, 127, {17, 107})[0]);
  for (const Known& k : p.conv(sum, head, 127, {14, 15, 7, 8})) p.output(k);
  p.check("maps");
}

// Many taps a power: runs that widen on the way, and sums beyond 32 bits.
void test_long_sums() {
  Program p(1, pick(30, 90), pick(1, 6), pick(1, 40));
  const Known x = p.input(one_of<uint32_t>({kU8, kI16}), 40000);
  const naive::Conv c = {x.channels, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0};
  for (const Known& k : p.conv(x, c, one_of<int>({0, 127}), {107, 14, 7})) p.output(k);
  p.check("long sums");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 150, seed = argc > 2 ? std::atoi(argv[2]) : 1;
  for (int i = 0; i < rounds; i++) {
    rng.seed(uint32_t(seed + i));
    const int before = check::failures;
    test_layers();
    test_maps();
    if (i % 4 == 0) test_long_sums();
    if (check::failures > before) std::printf("seed %d\n", seed + i);
  }
  return check::report();
}
