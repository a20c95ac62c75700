// Several convolutions read the same bits or bytes with strides, paddings, padding values and zero points of their own: each must find
// its halo and its phases, also where readers share a repacked copy or the memory of one that is done.
#include <algorithm>
#include <random>

#include "builder.h"
#include "check.h"
#include "maps.h"
#include "naive.h"
#include "signbit/signbit.h"

namespace {

std::mt19937 rng(3);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

// `zero_points`: of the quantisation and of each convolution, or none where the map is of bits.
void run_case(const std::vector<naive::Conv>& convs, int channels, int size, int batch, int threads,
              const std::string& name, const std::vector<int>& zero_points = {}) {
  const bool binary = zero_points.empty();
  builder::File f;
  const uint32_t x = f.value(0, uint32_t(channels)), shared = f.value(binary ? 6 : 4, uint32_t(channels));
  const uint32_t cut = f.add(builder::tensor(0, std::vector<float>(size_t(channels), 0.0f)));
  if (binary)
    f.nodes.push_back({6, "bits", {x}, {shared}, {}, {}, {{9, shared, {}, {cut}}}});
  else
    f.nodes.push_back({6, "bytes", {x}, {shared}, {}, {}, {{10, shared, {0x3F800000, zero_points[0], 255}, {}}}});
  std::vector<std::vector<int>> weights;
  for (const naive::Conv& c : convs) {
    std::vector<int> weight(c.weights());
    for (int& w : weight) w = binary ? 2 * pick(0, 1) - 1 : pick(-128, 127);
    const uint32_t y = f.value(0, uint32_t(c.out));
    const uint32_t w = binary ? f.add(builder::tensor(4, c.pack_bits(weight))) : f.add(builder::tensor(3, c.pack_bytes(weight)));
    const uint32_t scale = f.add(builder::tensor(0, std::vector<float>(size_t(c.out), 1.0f)));
    const uint32_t bias = f.add(builder::tensor(0, std::vector<float>(size_t(c.out), 0.0f)));
    const int last = binary ? c.outside : zero_points[1 + weights.size()];
    f.nodes.push_back({binary ? 1u : 2u, "conv", {shared}, {y}, c.attrs(last), {w}, {{1, 0xFFFFFFFF, {}, {scale, bias}}, {7, y, {}, {}}}});
    f.outputs.emplace_back(y, 0);
    weights.push_back(weight);
  }
  std::vector<int> image(size_t(batch * channels * size * size));
  for (int& v : image) v = binary ? 2 * pick(0, 1) - 1 : pick(0, 255) - zero_points[0];
  const std::vector<float> input(image.begin(), image.end());
  const std::vector<uint8_t> file = f.bytes();
  char error[256];
  signbit_model* model = nullptr;
  signbit_session* session = nullptr;
  signbit_session_options options = {};
  options.batch = batch;
  options.height = options.width = size;
  options.threads = threads;
  check::that(signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) == SIGNBIT_OK, name + error);
  check::that(signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK, name + error);
  std::vector<std::vector<float>> expected, found;
  std::vector<float*> outputs;
  for (size_t i = 0; i < convs.size(); i++) {
    std::vector<int> seen = image;
    if (!binary)
      for (int& v : seen) v += zero_points[0] - zero_points[1 + i];
    const std::vector<int> sums = convs[i].run(seen, weights[i], batch, size, size);
    expected.emplace_back(sums.begin(), sums.end());
    found.emplace_back(sums.size());
  }
  for (auto& y : found) outputs.push_back(y.data());
  for (int round = 0; round < 2; round++)
    check::that(signbit_session_run(session, input.data(), SIGNBIT_INPUT_F32_NCHW, outputs.data(), error, sizeof error) == SIGNBIT_OK,
                name + error);
  for (size_t i = 0; i < convs.size(); i++) check::that(found[i] == expected[i], name + ": convolution " + std::to_string(i));
  signbit_session_close(session);
  signbit_model_close(model);
}

// A network of convolutions of bits, beside which plain loops compute what it gives.
class BitNetwork {
 public:
  struct Bits {
    uint32_t value;
    int height, width;
    std::vector<int> image;
  };

  BitNetwork(int channels, int batch, int height, int width) : network(channels), input(batch, channels, height, width) {
    for (float& x : input.v) x = float(2 * pick(0, 1) - 1);
    first = {network.sign(0, channels), height, width, {input.v.begin(), input.v.end()}};
  }
  // The sums' signs.
  Bits bits(const Bits& from, const naive::Conv& c) {
    const uint32_t y = network.value(maps::kB1, uint32_t(c.out));
    return made(y, c, from, conv(from, c, y, {sums_of(c.out), {9, y, {}, {numbers(c.out, 0)}}}), [](size_t, int sum) { return sum >= 0; });
  }
  // A cut a channel, from either side.
  Bits cut(const Bits& from, const naive::Conv& c) {
    std::vector<int32_t> low, high;
    std::vector<uint8_t> flip;
    for (int o = 0; o < c.out; o++) {
      const bool lower = pick(0, 1);
      low.push_back(lower ? pick(-9, 9) : -2147483647);
      high.push_back(lower ? 2147483647 : pick(-9, 9));
      flip.push_back(uint8_t(pick(0, 1)));
    }
    const uint32_t y = network.value(maps::kB1, uint32_t(c.out)), l = network.add(builder::tensor(1, low)),
                   h = network.add(builder::tensor(1, high)), f = network.add(builder::tensor(4, flip));
    return made(y, c, from, conv(from, c, y, {{8, y, {}, {l, h, f}}}),
                [&](size_t o, int sum) { return (low[o] <= sum && sum <= high[o]) != (flip[o] == 1); });
  }
  void output(const Bits& from, const naive::Conv& c) {
    const uint32_t y = network.value(maps::kF32, uint32_t(c.out));
    const std::vector<int> sums = conv(from, c, y, {sums_of(c.out), {7, y, {}, {}}});
    maps::Map expected(input.batch, c.out, c.out_height(from.height), c.out_width(from.width));
    expected.v.assign(sums.begin(), sums.end());
    network.output(y, expected);
  }
  void check(int threads, const std::string& name) const { network.check(input, threads, name + ", " + std::to_string(threads) + " threads"); }
  // How many layers' results lie as words.
  int word_maps(const std::string& isa) const {
    const std::vector<uint8_t> file = network.bytes();
    char error[256];
    signbit_model* model = nullptr;
    signbit_session* session = nullptr;
    const signbit_session_options options = {input.batch, input.height, input.width, 1, isa.c_str(), 0};
    check::that(signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) == SIGNBIT_OK, error);
    check::that(signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK, error);
    const std::string steps = signbit_session_profile(session);
    int count = 0;
    for (size_t at = steps.find("planes of words"); at != std::string::npos; at = steps.find("planes of words", at + 1)) count++;
    signbit_session_close(session);
    signbit_model_close(model);
    return count;
  }

  Bits first;

 private:
  uint32_t numbers(int count, float x) { return network.add(builder::tensor(0, std::vector<float>(size_t(count), x))); }
  builder::StepDef sums_of(int count) { return {1, maps::kNoValue, {}, {numbers(count, 1), numbers(count, 0)}}; }
  std::vector<int> conv(const Bits& from, const naive::Conv& c, uint32_t y, const std::vector<builder::StepDef>& steps) {
    std::vector<int> weight(c.weights());
    for (int& w : weight) w = 2 * pick(0, 1) - 1;
    network.nodes.push_back({1, "conv", {from.value}, {y}, c.attrs(c.outside), {network.add(builder::tensor(4, c.pack_bits(weight)))}, steps});
    return c.run(from.image, weight, input.batch, from.height, from.width);
  }
  template <typename IsSet>
  Bits made(uint32_t y, const naive::Conv& c, const Bits& from, const std::vector<int>& sums, IsSet is_set) const {
    Bits m = {y, c.out_height(from.height), c.out_width(from.width), {}};
    for (size_t i = 0; i < sums.size(); i++)
      m.image.push_back(is_set(i / size_t(m.height * m.width) % size_t(c.out), sums[i]) ? 1 : -1);
    return m;
  }

  maps::Network network;
  maps::Map input;
};

// Bits that one kernel writes and several kinds of kernels read, each of which wants what is beside the image.
void test_margins() {
  BitNetwork n(64, 1, 23, 23);
  const naive::Conv usual = {64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0};
  const BitNetwork::Bits first = n.bits(n.first, usual), wide = n.bits(first, usual);
  n.output(wide, {64, 64, 5, 5, 1, 1, 2, 2, 1, 1, 1, 0});
  n.output(first, {64, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0});   // few output channels
  n.output(first, {64, 64, 3, 3, 1, 1, 2, 2, 2, 2, 2, 0});  // groups
  n.output(first, {64, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0});
  for (int threads : {1, 3}) n.check(threads, "margins");
}

// Maps that only convolutions by words write and read lie as words. Their readers differ in padding, stride and size; one more reader
// that wants nibbles, or another halo, and a map stays as it was.
void test_word_maps() {
  const auto square = [](int channels, int out, int kernel, int stride, int pad, int outside) {
    return naive::Conv{channels, out, kernel, kernel, stride, stride, pad, pad, 1, 1, 1, outside};
  };
  const auto lie_so = [](const BitNetwork& n, int count, const std::string& name) {
    for (const std::string& isa : maps::instruction_sets()) {
      const int found = n.word_maps(isa);  // tiles are faster for some
      const bool right = isa == "avx512_popcnt" ? found == count : isa == "amx" ? found > 0 && found <= count : found == 0;
      check::that(right, name + ": " + std::to_string(found) + " maps of words on " + isa);
    }
  };
  const std::vector<std::string> sets = maps::instruction_sets();
  if (std::none_of(sets.begin(), sets.end(), [](const std::string& isa) { return isa == "amx" || isa == "avx512_popcnt"; })) return;
  struct Size {
    int batch, height, width, word_maps;
  };
  for (const Size s : {Size{1, 14, 14, 4}, {1, 7, 7, 2}, {3, 9, 6, 3}, {1, 27, 9, 4}}) {
    for (int outside : {0, 1, -1}) {
      BitNetwork n(128, s.batch, s.height, s.width);
      // Channels that fill no word, no byte, nor a nibble; a map that is read in steps, one that is read without padding.
      const BitNetwork::Bits a = n.cut(n.first, square(128, 118, 3, 1, 1, outside)), b = n.cut(a, square(118, 318, 3, 1, 1, outside)),
                             c = n.cut(b, square(318, 250, 1, 1, 0, 0)), d = n.cut(c, square(250, 128, 3, 2, 1, outside));
      n.output(b, square(318, 64, 5, 1, 2, outside));
      n.output(c, square(250, 64, 2, 1, 0, 0));
      n.output(d, square(128, 96, 3, 1, 1, outside));
      n.output(d, square(128, 64, 3, 1, 0, 0));
      const std::string name = "words, " + std::to_string(s.batch) + "x" + std::to_string(s.height) + "x" + std::to_string(s.width) +
                               ", outside " + std::to_string(outside);
      for (int threads : {1, 2, 3, 7}) n.check(threads, name);
      lie_so(n, s.word_maps, name);
    }
  }
  // Pixels that threads do not share evenly, in large tiles and, of so many channels, in small ones.
  for (const auto& [side, channels] : {std::pair{27, 128}, {11, 384}, {19, 384}}) {
    BitNetwork n(channels, 1, side, side);
    const BitNetwork::Bits a = n.cut(n.first, square(channels, channels, 3, 1, 1, 0)), b = n.cut(a, square(channels, channels, 3, 1, 1, 0));
    n.output(b, square(channels, 64, 3, 1, 1, 0));
    const std::string name = "words, " + std::to_string(channels) + "x" + std::to_string(side) + "x" + std::to_string(side);
    for (int threads : {1, 2, 3}) n.check(threads, name);
    lie_so(n, 2, name);
  }
  BitNetwork mixed(128, 1, 14, 14);
  const BitNetwork::Bits a = mixed.cut(mixed.first, square(128, 128, 3, 1, 1, 0)), b = mixed.cut(a, square(128, 128, 3, 1, 1, 0)),
                         c = mixed.cut(b, square(128, 128, 3, 1, 1, 0));
  mixed.output(a, square(128, 2, 3, 1, 1, 0));
  mixed.output(b, square(128, 128, 3, 1, 1, 1));
  mixed.output(c, square(128, 128, 3, 1, 1, 0));
  for (int threads : {1, 3}) mixed.check(threads, "words and nibbles");
  lie_so(mixed, 1, "words and nibbles");
}

}  // namespace

int main() {
  // An unpadded reader behind two padded ones that want different halos.
  const int c = 64;
  run_case({{c, 8, 1, 3, 2, 2, 0, 1, 1, 1, 1, 0}, {c, 8, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1},
            {c, 8, 2, 2, 2, 2, 0, 0, 1, 1, 1, 0}}, c, 12, 1, 1, "three readers");
  // A late reader of phases that an early copy has.
  run_case({{c, 8, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, {c, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0},
            {c, 64, 5, 5, 1, 1, 2, 2, 1, 1, 1, -1}, {c, 8, 3, 3, 2, 2, 1, 1, 1, 1, 1, -1},
            {c, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, {c, 8, 1, 1, 2, 2, 0, 0, 1, 1, 1, 0}},
           c, 12, 1, 2, "a late reader");
  // Strided readers that want what an earlier reader's halo has, and one that does not.
  run_case({{130, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, {130, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1}, {130, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, -1}},
           130, 33, 2, 3, "one halo, then another");
  test_margins();
  test_word_maps();
  // Kernels, strides and padding are few, so that many readers share an output size.
  for (int round = 0; round < 300; round++) {
    const int channels = pick(1, 20), size = pick(9, 14), stride = pick(1, 4);
    std::vector<naive::Conv> convs(size_t(pick(2, 6)));
    for (naive::Conv& conv : convs)
      conv = {channels, channels * pick(1, 2), pick(1, 5), pick(1, 5), stride, pick(0, 4) ? stride : pick(1, 4), pick(0, 3),
              pick(0, 3), pick(1, 2), pick(1, 2), pick(0, 2) ? 1 : channels, pick(-1, 1)};
    const int batch = pick(1, 3), threads = pick(1, 2);
    run_case(convs, channels, size, batch, threads, "round " + std::to_string(round));
    std::vector<int> zero_points = {pick(0, 255)};
    for (naive::Conv& conv : convs) {
      conv.outside = 0;
      zero_points.push_back(pick(0, 2) ? pick(0, 255) : zero_points[0]);
    }
    run_case(convs, channels, size, batch, threads, "round " + std::to_string(round) + " of bytes", zero_points);
  }
  return check::report();
}
