// Damaged and hostile files give an error that names the field, never a crash.
#include <random>

#include "builder.h"
#include "check.h"
#include "signbit/signbit.h"

namespace {

builder::File small_file() {
  builder::File f;
  const uint32_t x = f.value(0, 4), q = f.value(6, 4), y = f.value(0, 2);
  const uint32_t cut = f.add(builder::tensor(0, std::vector<float>(4, 0.0f)));
  const uint32_t w = f.add(builder::tensor(4, std::vector<uint8_t>(9, 0x5A)));
  const uint32_t scale = f.add(builder::tensor(0, std::vector<float>(2, 1.0f)));
  f.nodes.push_back({6, "bits", {x}, {q}, {}, {}, {{9, q, {}, {cut}}}});
  f.nodes.push_back({1, "conv", {q}, {y}, {4, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, {w},
                     {{1, 0xFFFFFFFF, {}, {scale, scale}}, {7, y, {}, {}}}});
  f.outputs = {{y, 0}};
  return f;
}

signbit_status open_bytes(const std::vector<uint8_t>& bytes, std::string* message) {
  char error[512];
  signbit_model* model = nullptr;
  const signbit_status status = signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error);
  signbit_model_close(model);
  *message = error;
  return status;
}

void refuses(const builder::File& file, const std::string& part) {
  std::string message;
  const signbit_status status = open_bytes(file.bytes(), &message);
  check::that(status == SIGNBIT_ERROR_FORMAT, part + ": status " + std::to_string(status));
  check::that(message.find(part) != std::string::npos, "\"" + message + "\" should contain \"" + part + "\"");
}

}  // namespace

int main() {
  std::string message;
  const std::vector<uint8_t> good = small_file().bytes();
  check::that(open_bytes(good, &message) == SIGNBIT_OK, "the file itself: " + message);

  for (size_t size = 0; size < good.size(); size++)
    check::that(open_bytes(std::vector<uint8_t>(good.begin(), good.begin() + long(size)), &message) == SIGNBIT_ERROR_FORMAT,
                "truncated to " + std::to_string(size));
  for (size_t bit = 0; bit < 8 * good.size(); bit++) {
    std::vector<uint8_t> bad = good;
    bad[bit / 8] ^= uint8_t(1 << bit % 8);
    check::that(open_bytes(bad, &message) == SIGNBIT_ERROR_FORMAT && !message.empty(), "bit " + std::to_string(bit));
  }

  // Files with a right hash whose graph is wrong.
  auto broken = [](auto change, const char* part) {
    builder::File f = small_file();
    change(f);
    refuses(f, part);
  };
  broken([](auto& f) { f.version = 2; }, "newer signbit");
  broken([](auto& f) { f.nodes[1].inputs[0] = 2; }, "reads a value that nothing wrote before");
  broken([](auto& f) { f.nodes[1].inputs[0] = 77; }, "id 77");
  broken([](auto& f) { f.nodes[1].outputs[0] = 1; }, "written before");
  broken([](auto& f) { f.nodes[1].code = 99; }, "unknown operation");
  broken([](auto& f) { f.nodes[1].attrs[2] = 0; }, "kernel_h");
  broken([](auto& f) { f.nodes[1].attrs[2] = 5; }, "weight");
  broken([](auto& f) { f.nodes[1].attrs[10] = 3; }, "groups");
  broken([](auto& f) { f.nodes[1].attrs[11] = 2; }, "pad_value");
  broken([](auto& f) { f.nodes[1].steps[0].code = 42; }, "unknown step");
  broken([](auto& f) { f.nodes[1].steps.clear(); }, "no steps");
  broken([](auto& f) { f.nodes[1].steps.erase(f.nodes[1].steps.begin()); }, "step 0");
  broken([](auto& f) { f.nodes[1].steps[0].params[0] = 9; }, "id 9");
  broken([](auto& f) { f.nodes[1].steps[0].params[0] = 1; }, "wrong dtype");
  broken([](auto& f) { f.values[1].second = 5; }, "channels");
  broken([](auto& f) { f.values[0].first = 3; }, "input value is not f32");
  broken([](auto& f) { f.outputs.clear(); }, "no outputs");
  broken([](auto& f) { f.outputs[0].first = 1; }, "output value is not f32");
  broken([](auto& f) { f.tensors[1].bytes.resize(3), f.tensors[1].count = 3; }, "holds 3 elements");
  broken([](auto& f) { f.tensors[1].count = 0x7FFFFFFF; }, "outside the file");

  // Words of the graph replaced at random under a right hash: an error or a file that runs, never a crash.
  std::mt19937 rng(7);
  int opened = 0;
  for (int round = 0; round < 3000; round++) {
    builder::File f = small_file();
    const uint32_t choices[] = {0, 1, 2, 3, 4, 9, 64, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, uint32_t(rng())};
    auto word = [&] { return choices[rng() % 12]; };
    for (int change = 0; change < 1 + int(rng() % 2); change++) {
      builder::NodeDef& n = f.nodes[rng() % 2];
      switch (rng() % 7) {
        case 0: n.code = word(); break;
        case 1: n.inputs[0] = word(); break;
        case 2: n.outputs[0] = word(); break;
        case 3: if (!n.attrs.empty()) n.attrs[rng() % n.attrs.size()] = int32_t(word()); break;
        case 4: n.steps[rng() % n.steps.size()].code = word(); break;
        case 5: n.steps[rng() % n.steps.size()].value = word(); break;
        default: f.values[rng() % f.values.size()].second = word(); break;
      }
    }
    const std::vector<uint8_t> bytes = f.bytes();
    char error[512];
    signbit_model* model = nullptr;
    if (signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error) != SIGNBIT_OK) continue;
    signbit_session* session = nullptr;
    const signbit_session_options options = {1, 6, 5, 1, nullptr};
    if (signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK) {
      opened++;
      int64_t shape[4];
      int32_t rank;
      signbit_session_output_shape(session, 0, shape, &rank);
      std::vector<float> x(size_t(signbit_model_input_channels(model)) * 30, 1.0f);
      std::vector<float> y(size_t(shape[0] * shape[1] * (rank == 4 ? shape[2] * shape[3] : 1)));
      float* outputs[] = {y.data()};
      check::that(signbit_session_run(session, x.data(), SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error) == SIGNBIT_OK,
                  error);
      signbit_session_close(session);
    }
    signbit_model_close(model);
  }
  check::that(opened > 0, "some changes leave a file that runs");

  // Sizes that cannot be: too large for memory, for an int, or for a network that ends in a vector.
  auto refuses_size = [](bool flat, int batch, int height, int width, const char* part) {
    builder::File f = small_file();
    f.outputs[0].second = flat;
    const std::vector<uint8_t> bytes = f.bytes();
    char text[512];
    signbit_model* opened_model = nullptr;
    signbit_session* session = nullptr;
    check::that(signbit_model_open_memory(bytes.data(), bytes.size(), &opened_model, text, sizeof text) == SIGNBIT_OK, text);
    const signbit_session_options options = {batch, height, width, 1, nullptr};
    const signbit_status status = signbit_session_open(opened_model, &options, &session, text, sizeof text);
    check::that(status == SIGNBIT_ERROR_ARGUMENT && std::string(text).find(part) != std::string::npos,
                std::string(part) + ": " + text);
    signbit_model_close(opened_model);
  };
  refuses_size(false, 1 << 20, 1 << 20, 1 << 20, "too large");
  refuses_size(false, 1, 40000, 40000, "too large");
  refuses_size(false, 1 << 21, 5, 5, "at most 1048576");
  refuses_size(false, 1, 5, 1 << 30, "at most 1048576");
  refuses_size(true, 1, 5, 6, "ends in a vector");

  signbit_model* model = nullptr;
  char error[256];
  check::that(signbit_model_open("/no/such/file.signbit", &model, error, sizeof error) == SIGNBIT_ERROR_IO, error);
  check::that(signbit_model_open("/", &model, error, sizeof error) == SIGNBIT_ERROR_IO, error);
  return check::report();
}
