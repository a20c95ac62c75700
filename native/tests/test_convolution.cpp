// Binary and 8-bit convolutions against naive loops, over kernels, strides, padding, dilation, groups, padding
// values, odd channel counts, batches and threads, on every instruction set of this machine.
#include <random>

#include "builder.h"
#include "check.h"
#include "naive.h"
#include "signbit/signbit.h"

namespace {

constexpr uint32_t kF32 = 0, kU8 = 4, kB1 = 6;

struct Case {
  int channels, out, kernel_h, kernel_w, stride, pad, dilation, groups, pad_value, height, width, batch, threads;
};

std::mt19937 rng(1);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

naive::Conv conv_of(const Case& c, bool binary) {
  return {c.channels, c.out, c.kernel_h, c.kernel_w, c.stride, c.pad, c.pad, c.dilation, c.groups,
          binary ? c.pad_value : 0};
}

// The file: input -> bits or bytes -> convolution -> float32 of the integer sums.
std::vector<uint8_t> make_file(const Case& c, bool binary, int zero_point, const std::vector<int>& weight) {
  builder::File f;
  const naive::Conv conv = conv_of(c, binary);
  const uint32_t x = f.value(kF32, uint32_t(c.channels)), q = f.value(binary ? kB1 : kU8, uint32_t(c.channels)),
                 y = f.value(kF32, uint32_t(c.out));
  uint32_t w;
  if (binary) {
    w = f.add(builder::tensor(4, conv.pack_bits(weight)));
    const uint32_t cut = f.add(builder::tensor(0, std::vector<float>(size_t(c.channels), 0.0f)));
    f.nodes.push_back({6, "bits", {x}, {q}, {}, {}, {{9, q, {}, {cut}}}});
  } else {
    w = f.add(builder::tensor(3, conv.pack_bytes(weight)));
    const float one = 1.0f;
    int32_t bits;
    std::memcpy(&bits, &one, 4);
    f.nodes.push_back({6, "bytes", {x}, {q}, {}, {}, {{10, q, {bits, zero_point}, {}}}});
  }
  const uint32_t scale = f.add(builder::tensor(0, std::vector<float>(size_t(c.out), 1.0f)));
  const uint32_t bias = f.add(builder::tensor(0, std::vector<float>(size_t(c.out), 0.0f)));
  f.nodes.push_back({binary ? 1u : 2u, "conv", {q}, {y}, conv.attrs(binary ? c.pad_value : zero_point), {w},
                     {{1, 0xFFFFFFFF, {}, {scale, bias}}, {7, y, {}, {}}}});
  f.outputs = {{y, 0}};
  return f.bytes();
}

void run_case(const Case& c, bool binary, const char* isa) {
  const naive::Conv conv = conv_of(c, binary);
  const int zero_point = pick(0, 255);
  std::vector<int> weight(conv.weights());
  for (int& w : weight) w = binary ? 2 * pick(0, 1) - 1 : pick(-127, 127);
  std::vector<float> x(size_t(c.batch * c.channels * c.height * c.width));
  for (float& v : x) v = binary ? float(2 * pick(0, 1) - 1) : float(pick(-zero_point, 255 - zero_point));
  const std::string name = std::string(binary ? "binary " : "8-bit ") + isa + " C" + std::to_string(c.channels) + " O" +
                           std::to_string(c.out) + " k" + std::to_string(c.kernel_h) + "x" + std::to_string(c.kernel_w) +
                           " s" + std::to_string(c.stride) + " p" + std::to_string(c.pad) + " d" +
                           std::to_string(c.dilation) + " g" + std::to_string(c.groups) + " v" +
                           std::to_string(c.pad_value) + " " + std::to_string(c.height) + "x" + std::to_string(c.width) +
                           " n" + std::to_string(c.batch) + " t" + std::to_string(c.threads);
  const std::vector<uint8_t> file = make_file(c, binary, zero_point, weight);
  char error[256];
  signbit_model* model = nullptr;
  signbit_session* session = nullptr;
  if (signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) != SIGNBIT_OK) {
    check::that(false, name + ": " + error);
    return;
  }
  const signbit_session_options options = {c.batch, c.height, c.width, c.threads, isa};
  if (signbit_session_open(model, &options, &session, error, sizeof error) != SIGNBIT_OK) {
    check::that(false, name + ": " + error);
    signbit_model_close(model);
    return;
  }
  int64_t shape[4];
  int32_t rank;
  signbit_session_output_shape(session, 0, shape, &rank);
  std::vector<float> y(size_t(shape[0] * shape[1] * shape[2] * shape[3]));
  float* outputs[] = {y.data()};
  for (int round = 0; round < 2; round++)  // the second finds the memory as the first left it
    check::that(signbit_session_run(session, x.data(), SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error) == SIGNBIT_OK,
                name + ": " + error);
  const std::vector<float> expected = conv.run(x, weight, c.batch, c.height, c.width);
  check::that(expected.size() == y.size(), name + ": size of the output");
  int wrong = 0;
  for (size_t i = 0; i < y.size() && i < expected.size(); i++) wrong += expected[i] != y[i];
  check::that(wrong == 0, name + ": " + std::to_string(wrong) + " sums differ");
  signbit_session_close(session);
  signbit_model_close(model);
}

}  // namespace

int main() {
  std::vector<std::string> sets;
  std::string names = signbit_instruction_sets();
  for (size_t start = 0; start <= names.size();) {
    const size_t end = std::min(names.find(',', start), names.size());
    sets.push_back(names.substr(start, end - start));
    start = end + 1;
  }
  // Those that the networks have, then a random walk through the rest.
  std::vector<Case> cases = {
      {64, 64, 3, 3, 1, 1, 1, 1, 0, 14, 14, 1, 1},  {64, 128, 3, 3, 2, 1, 1, 1, 0, 14, 14, 1, 2},
      {64, 128, 1, 1, 2, 0, 1, 1, 0, 14, 14, 2, 2}, {3, 64, 7, 7, 2, 3, 1, 1, 0, 31, 29, 1, 2},
      {256, 16, 3, 3, 1, 1, 1, 1, 0, 7, 7, 1, 1},   {128, 10, 1, 1, 1, 0, 1, 1, 0, 1, 1, 5, 1},
      {4096, 8, 3, 3, 1, 1, 1, 1, 0, 2, 2, 1, 1},   {20, 20, 3, 3, 1, 1, 1, 1, 1, 5, 6, 1, 1},
      {8, 8, 3, 3, 1, 0, 1, 1, 0, 9, 9, 1, 1},      {16, 8, 5, 5, 1, 4, 2, 1, -1, 9, 11, 3, 2}};
  for (int i = 0; i < 300; i++) {
    Case c;
    c.groups = pick(0, 3) ? 1 : pick(2, 3);
    c.channels = c.groups > 1 ? 4 * c.groups * pick(1, 3) : pick(1, 40);
    c.out = c.groups > 1 ? 4 * c.groups * pick(1, 5) : pick(1, 30);
    c.kernel_h = pick(1, 5);
    c.kernel_w = pick(1, 5);
    c.stride = pick(1, 3);
    c.pad = pick(0, 3);
    c.dilation = pick(1, 2);
    c.pad_value = pick(-1, 1);
    c.height = pick(c.dilation * (c.kernel_h - 1) + 1, 20);
    c.width = pick(c.dilation * (c.kernel_w - 1) + 1, 20);
    c.batch = pick(1, 3);
    c.threads = pick(1, 3);
    cases.push_back(c);
  }
  for (const std::string& isa : sets)
    for (const Case& c : cases)
      for (bool binary : {true, false}) run_case(c, binary, isa.c_str());
  return check::report();
}
