// Several convolutions read the same bits or bytes with strides, paddings, padding values and zero points of their own: each must find
// its halo and its phases, also where readers share a repacked copy or the memory of one that is done.
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

// Bits that one kernel writes and several kinds of kernels read, each of which wants what is beside the image.
void test_margins() {
  constexpr int kSize = 23;
  struct Bits {
    uint32_t value;
    std::vector<int> image;
  };
  maps::Network n(64);
  const auto conv = [&](const Bits& from, const naive::Conv& c, uint32_t y, const std::vector<builder::StepDef>& steps) {
    std::vector<int> weight(c.weights());
    for (int& w : weight) w = 2 * pick(0, 1) - 1;
    n.nodes.push_back({1, "conv", {from.value}, {y}, c.attrs(c.outside), {n.add(builder::tensor(4, c.pack_bits(weight)))}, steps});
    return c.run(from.image, weight, 1, kSize, kSize);
  };
  const auto numbers = [&](int count, float x) { return n.add(builder::tensor(0, std::vector<float>(size_t(count), x))); };
  const auto sums_of = [&](int count) { return builder::StepDef{1, maps::kNoValue, {}, {numbers(count, 1), numbers(count, 0)}}; };
  const auto bits = [&](const Bits& from, const naive::Conv& c) {
    const uint32_t y = n.value(maps::kB1, uint32_t(c.out));
    Bits made = {y, conv(from, c, y, {sums_of(c.out), {9, y, {}, {numbers(c.out, 0)}}})};
    for (int& v : made.image) v = v >= 0 ? 1 : -1;
    return made;
  };
  const auto output = [&](const Bits& from, const naive::Conv& c) {
    const uint32_t y = n.value(maps::kF32, uint32_t(c.out));
    const std::vector<int> sums = conv(from, c, y, {sums_of(c.out), {7, y, {}, {}}});
    maps::Map expected(1, c.out, c.out_height(kSize), c.out_width(kSize));
    expected.v.assign(sums.begin(), sums.end());
    n.output(y, expected);
  };
  maps::Map input(1, 64, kSize, kSize);
  for (float& x : input.v) x = float(2 * pick(0, 1) - 1);
  const naive::Conv usual = {64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0};
  const Bits first = bits({n.sign(0, 64), {input.v.begin(), input.v.end()}}, usual), wide = bits(first, usual);
  output(wide, {64, 64, 5, 5, 1, 1, 2, 2, 1, 1, 1, 0});
  output(first, {64, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0});   // few output channels
  output(first, {64, 64, 3, 3, 1, 1, 2, 2, 2, 2, 2, 0});  // groups
  output(first, {64, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0});
  for (int threads : {1, 3}) n.check(input, threads, "margins, " + std::to_string(threads) + " threads");
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
