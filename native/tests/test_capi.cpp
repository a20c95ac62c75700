// The C API at its edges: metadata, null arguments, cut messages, the debug mode, memory limits.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "maps.h"

using maps::kF32;
using maps::kNoValue;
using maps::Map;
using maps::Network;

namespace {

struct Model {
  signbit_model* handle = nullptr;
  explicit Model(const builder::File& file) {
    const std::vector<uint8_t> bytes = file.bytes();
    char error[512];
    check::that(signbit_model_open_memory(bytes.data(), bytes.size(), &handle, error, sizeof error) == SIGNBIT_OK, error);
  }
  ~Model() { signbit_model_close(handle); }
};

struct Session {
  signbit_session* handle = nullptr;
  signbit_status status;
  char error[512];
  Session(const Model& model, int batch, int height, int width, uint64_t limit = 0, int threads = 1) {
    const signbit_session_options options = {batch, height, width, threads, nullptr, limit};
    status = signbit_session_open(model.handle, &options, &handle, error, sizeof error);
  }
  ~Session() { signbit_session_close(handle); }
  signbit_status run(const Map& x, std::vector<float>& y) {
    float* outputs[] = {y.data()};
    return signbit_session_run(handle, x.v.data(), SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error);
  }
};

bool contains(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) std::fprintf(stderr, "\"%s\" should contain \"%s\"\n", text.c_str(), part.c_str());
  return found;
}

// layer0: x * x, layer1: its root mean, layer2: back on the map.
Network squares() {
  Network net(3);
  const uint32_t square = net.pointwise(0, 3, {{11, 0, {}, {}}}, {0});
  const uint32_t mean = net.node(10, {square}, kF32, 3, {1, 1, 0});
  const uint32_t y = net.pointwise(square, 3, {{11, mean, {}, {}}}, {mean});
  net.output(y, Map());
  return net;
}

void test_metadata() {
  auto shape_status = [](const std::string& text, int32_t* shape) {
    builder::File f = squares();
    f.input_shape = text;
    return signbit_model_input_shape(Model(f).handle, shape);
  };
  int32_t shape[3] = {0, 0, 0};
  check::that(shape_status("3,224,17", shape) == SIGNBIT_OK && shape[0] == 3 && shape[1] == 224 && shape[2] == 17, "input_shape");
  for (const char* bad : {"", "3", "3,4", "3,4,", "3,4,5,6", "3,4,x", "3,-4,5", "3,0,5", "3,4,99999999999", "4,4,4", " 3,4,5"})
    check::that(shape_status(bad, shape) == SIGNBIT_ERROR_FORMAT, std::string("input_shape \"") + bad + "\"");

  auto names_of = [](const std::string& metadata) {
    builder::File f = squares();
    f.metadata = metadata;
    const Model model(f);
    std::vector<std::string> names;
    for (int i = 0; i < signbit_model_class_count(model.handle); i++) names.push_back(signbit_model_class_name(model.handle, i));
    check::that(!signbit_model_class_name(model.handle, int(names.size())) && !signbit_model_class_name(model.handle, -1), "beyond");
    return names;
  };
  const std::string list = R"("class_names":"[\"cat\", \"a \\\"dog\\\"\", \"K\\u00e4se \\ud83e\\uddc0\", \"\"]",)";
  check::that(names_of(list) == std::vector<std::string>{"cat", "a \"dog\"", "K\xC3\xA4se \xF0\x9F\xA7\x80", ""}, "class names");
  check::that(names_of("").empty(), "no class names");
  for (const char* bad : {"cat", "{}", "[1]", "[\\\"cat\\\"", "[\\\"cat\\\"] x", "[\\\"a\\\", null]"})
    check::that(names_of(std::string("\"class_names\":\"") + bad + "\",").empty(), std::string("class names ") + bad);
}

void test_null_arguments() {
  char error[64];
  const Network net = squares();
  const Model model(net);
  const Session session(model, 1, 2, 2);
  signbit_model* no_model = nullptr;
  signbit_session* no_session = nullptr;
  const signbit_session_options options = {1, 2, 2, 1, nullptr, 0};
  int64_t dims[4];
  int32_t rank, shape[3];
  signbit_output_type type;
  float x[12] = {}, y[12];
  float *outputs[] = {y}, *missing[] = {nullptr};
  for (signbit_status status : {
           signbit_model_open(nullptr, &no_model, error, sizeof error),
           signbit_model_open("x", nullptr, error, sizeof error),
           signbit_model_open_memory(nullptr, 5, &no_model, error, sizeof error),
           signbit_model_open_memory(x, sizeof x, nullptr, error, sizeof error),
           signbit_model_input_shape(nullptr, shape),
           signbit_model_input_shape(model.handle, nullptr),
           signbit_session_open(nullptr, &options, &no_session, error, sizeof error),
           signbit_session_open(model.handle, nullptr, &no_session, error, sizeof error),
           signbit_session_open(model.handle, &options, nullptr, error, sizeof error),
           signbit_session_output_shape(nullptr, 0, dims, &rank),
           signbit_session_output_shape(session.handle, 0, nullptr, &rank),
           signbit_session_output_shape(session.handle, 0, dims, nullptr),
           signbit_session_output_shape(session.handle, 1, dims, &rank),
           signbit_session_output_type(nullptr, 0, &type),
           signbit_session_output_type(session.handle, 0, nullptr),
           signbit_session_output_type(session.handle, -1, &type),
           signbit_session_output_type(session.handle, 1, &type),
           signbit_session_run(nullptr, x, SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error),
           signbit_session_run(session.handle, nullptr, SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error),
           signbit_session_run(session.handle, x, SIGNBIT_INPUT_F32_NCHW, nullptr, error, sizeof error),
           signbit_session_run(session.handle, x, SIGNBIT_INPUT_F32_NCHW, missing, nullptr, 0),
       })
    check::that(status == SIGNBIT_ERROR_ARGUMENT, "a null argument: " + std::to_string(status));
  check::that(signbit_model_open_memory(nullptr, 0, &no_model, nullptr, 0) == SIGNBIT_ERROR_FORMAT, "no bytes, no message wanted");
  check::that(!signbit_model_metadata(nullptr) && !signbit_model_class_name(nullptr, 0) && !signbit_session_isa(nullptr) &&
                  !signbit_session_profile(nullptr), "null texts");
  check::that(!signbit_model_input_channels(nullptr) && !signbit_model_accepts_pixels(nullptr) && !signbit_model_class_count(nullptr) &&
                  !signbit_session_arena_bytes(nullptr) && !signbit_session_weight_bytes(nullptr) && !signbit_session_output_count(nullptr),
              "null numbers");
  signbit_model_close(nullptr);
  signbit_session_close(nullptr);
  signbit_session_set_checking(nullptr, 1);
  signbit_session_set_profiling(nullptr, 1);
}

// A message that does not fit ends in front of a character, never within one.
void test_cut_messages() {
  Network net = squares();
  for (auto& n : net.nodes) n.path = "\xE5\xB1\xA4\xE5\xB1\xA4";  // 3 bytes each
  net.nodes[0].code = 4;  // an average pool with a pointwise node's steps: refused by name
  const std::vector<uint8_t> bytes = net.bytes();
  char whole[256];
  signbit_model* model = nullptr;
  check::that(signbit_model_open_memory(bytes.data(), bytes.size(), &model, whole, sizeof whole) == SIGNBIT_ERROR_FORMAT, "refused");
  check::that(contains(whole, net.nodes[0].path), "the message names the layer");
  for (size_t size = 1; size <= std::strlen(whole) + 1; size++) {
    std::vector<char> error(size, 'x');
    signbit_model_open_memory(bytes.data(), bytes.size(), &model, error.data(), size);
    const size_t length = std::strlen(error.data());
    const bool whole_characters = (static_cast<unsigned char>(whole[length]) & 0xC0) != 0x80;
    check::that(length < size && length + 3 >= size && whole_characters && std::string(whole).compare(0, length, error.data()) == 0,
                "cut to " + std::to_string(size));
  }
}

void test_checking() {
  const Network net = squares();
  const Model model(net);
  const float infinity = std::numeric_limits<float>::infinity();
  Session session(model, 2, 4, 5, 0, 2);
  Map x = maps::make(2, 3, 4, 5, [](int n, int c, int i, int j) { return float(n + c + i + j); });
  std::vector<float> y(x.v.size()), good(x.v.size());
  check::that(session.run(x, good) == SIGNBIT_OK, session.error);
  auto fails = [&](float v, const char* message) {
    Map bad = x;
    bad.at(1, 2, 3, 4) = v;
    check::that(session.run(bad, y) == SIGNBIT_OK, "unchecked");
    signbit_session_set_checking(session.handle, 1);
    check::that(session.run(bad, y) == SIGNBIT_ERROR_ARGUMENT && contains(session.error, message), message);
    check::that(session.run(x, y) == SIGNBIT_OK && y == good, "the session works after an error");
    signbit_session_set_checking(session.handle, 0);
  };
  fails(NAN, "layer \"layer0\": its input holds NaN at image 1, channel 2, row 3, column 4");
  fails(-infinity, "layer \"layer0\": its input holds infinity at image 1, channel 2, row 3, column 4");
  fails(1e30f, "layer \"layer0\" gives infinity at image 1, channel 2, row 3, column 4");
  fails(4e18f, "layer \"layer2\" gives infinity at image 1, channel 2, row 3, column 4");

  // Pixels that a table turns into bytes at once.
  Network quantised(2);
  const uint32_t bytes = quantised.node(6, {0}, 4, 2);
  quantised.nodes.back().steps = {{10, bytes, {maps::bits_of(1.0f), 3, 255}, {}}};
  const uint32_t one = quantised.add(builder::tensor(0, std::vector<float>{1.0f, 1.0f}));
  const uint32_t conv = quantised.node(2, {bytes}, kF32, 2, {2, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, 3},
                                       {quantised.add(builder::tensor(3, std::vector<int8_t>{1, 1, 0, 0, 1, 1, 0, 0}))});
  quantised.nodes.back().steps = {{1, kNoValue, {}, {one, one}}, {7, conv, {}, {}}};
  quantised.output(conv, Map());
  quantised.normalised = 1;
  quantised.mean = quantised.add(builder::tensor(0, std::vector<float>{0.0f, 0.0f}));
  quantised.std = quantised.add(builder::tensor(0, std::vector<float>{1.0f, 0.0f}));
  const Model table(quantised);
  Session looked_up(table, 2, 1, 2);
  const std::vector<uint8_t> pixels = {1, 2, 3, 4, 5, 6, 7, 0};  // the last is 0 / 0
  float results[8], *outputs[] = {results};
  auto look_up = [&](const std::vector<uint8_t>& x) {
    return signbit_session_run(looked_up.handle, x.data(), SIGNBIT_INPUT_U8_NHWC, outputs, looked_up.error, sizeof looked_up.error);
  };
  check::that(look_up(pixels) == SIGNBIT_OK, looked_up.error);
  signbit_session_set_checking(looked_up.handle, 1);
  check::that(look_up(pixels) == SIGNBIT_ERROR_ARGUMENT &&
                  contains(looked_up.error, "layer \"layer0\": its input holds infinity at image 0, channel 1, row 0, column 0"),
              "a standard deviation of 0");

  // An input that nothing but the caller reads.
  Network through(1);
  through.output(0, Map());
  const Model passing(through);
  Session pass(passing, 1, 1, 2);
  signbit_session_set_checking(pass.handle, 1);
  Map two(1, 1, 1, 2);
  two.v = {0.0f, NAN};
  std::vector<float> out(2);
  check::that(pass.run(two, out) == SIGNBIT_ERROR_ARGUMENT && contains(pass.error, "the input holds NaN at image 0, channel 0, row 0, column 1"),
              "an input without a reader");
}

// Convolution, pooling, resizing and channels: whatever keeps tables.
builder::File everything() {
  Network net(8);
  const uint32_t bits = net.sign(0, 8);
  const uint32_t w = net.add(builder::tensor(4, std::vector<uint8_t>(16 * 9 * 2, 0x5A)));
  const uint32_t one = net.add(builder::tensor(0, std::vector<float>(32, 1.0f)));
  const uint32_t conv = net.node(1, {bits}, kF32, 32, {8, 32, 3, 3, 2, 2, 1, 1, 1, 1, 1, 0}, {w});
  net.nodes.back().steps = {{1, kNoValue, {}, {one, one}}, {7, conv, {}, {}}};
  const uint32_t pool = net.node(3, {conv}, kF32, 32, {3, 3, 2, 2, 1, 1, 1, 1, 0}, {kNoValue});
  const uint32_t mean = net.node(4, {pool}, kF32, 32, {3, 3, 1, 1, 1, 1, 0, 0});
  const uint32_t large = net.node(8, {mean}, kF32, 32, {1, 0, 3, 3, 0, 0});
  std::vector<int32_t> index(20);
  for (size_t i = 0; i < index.size(); i++) index[i] = int32_t(i);
  net.output(net.node(7, {large}, kF32, 20, {}, {net.add(builder::tensor(1, index))}), Map());
  return std::move(net);
}

void test_memory_limit() {
  const builder::File file = everything();
  const Model model(file);
  // Each refusal says how much would do, until it does.
  uint64_t limit = 1;
  int refusals = 0;
  for (;; refusals++) {
    Session session(model, 1, 40, 30, limit);
    if (session.status == SIGNBIT_OK) {
      check::that(signbit_session_arena_bytes(session.handle) + signbit_session_weight_bytes(session.handle) <= limit, "within its limit");
      break;
    }
    check::that(session.status == SIGNBIT_ERROR_ARGUMENT && contains(session.error, "at least ") &&
                    contains(session.error, "memory limit of " + std::to_string(limit)), "a limit of " + std::to_string(limit));
    const uint64_t needed = std::strtoull(std::strstr(session.error, "at least ") + 9, nullptr, 10);
    check::that(needed > limit, "more than was allowed");
    if (needed <= limit) break;
    limit = needed;
  }
  check::that(refusals >= 1 && refusals < 40, std::to_string(refusals) + " refusals");
  check::that(Session(model, 1, 40, 30, limit - 1).status == SIGNBIT_ERROR_ARGUMENT, "a byte less");
  check::that(Session(model, 3, 40, 30, limit).status == SIGNBIT_ERROR_ARGUMENT, "three images");
  check::that(Session(model, 1, 20, 30, limit).status == SIGNBIT_OK, "a smaller image");
  Session huge(model, 1000, 900, 900);
  check::that(huge.status == SIGNBIT_ERROR_ARGUMENT && contains(huge.error, "too large"), "without a limit");
}

// Small files that ask for much.
void test_greedy_files() {
  auto refused = [](const builder::File& file, uint64_t limit, const char* message) {
    const Model model(file);
    const Session session(model, 1, 8, 8, limit);
    check::that(session.status == SIGNBIT_ERROR_ARGUMENT && contains(session.error, message), message);
  };
  Network resized(1);
  uint32_t x = 0;
  for (int i = 0; i < 3; i++) x = resized.node(8, {x}, kF32, 1, {0, 0, 4096, 4096, 0, 0});
  resized.output(x, Map());
  refused(resized, 0, "layer \"layer1\": its result of 134217728x134217728 pixels is too large");
  Network wide(1);
  wide.output(wide.node(8, {0}, kF32, 1, {0, 0, 0, 0, 65536, 65536}), Map());
  refused(wide, 0, "maps of 65536x65536 pixels for 1 images are too large");
  // Many sizes, each within reason, whose masks and maps together are not.
  Network many(1);
  for (int i = 0; i < 5000; i++) many.output(many.node(8, {0}, kF32, 1, {0, 0, 0, 0, 8000, 8001 + i}), Map());
  refused(many, 0, "more than any session may take");
  refused(many, 1 << 30, "memory limit of 1073741824");
  // A channel index as large as its output, of one channel.
  Network spread(1);
  spread.output(spread.node(7, {0}, kF32, 1 << 20, {}, {spread.add(builder::tensor(1, std::vector<int32_t>(1 << 20, 0)))}), Map());
  refused(spread, 8 << 20, "memory limit");
  // Many repacked copies of many phases each, from one weight.
  Network strided(1);
  const uint32_t large = strided.sign(strided.node(8, {0}, kF32, 1, {0, 0, 0, 0, 255, 257}), 1);
  const uint32_t w = strided.add(builder::tensor(4, std::vector<uint8_t>(65535, 0x0F)));
  const uint32_t one = strided.add(builder::tensor(0, std::vector<float>(1, 1.0f)));
  for (int i = 0; i < 300; i++) {
    const uint32_t y = strided.node(1, {large}, kF32, 1, {1, 1, 255, 257, 255 + i, 257, 0, 0, 1, 1, 1, 0}, {w});
    strided.nodes.back().steps = {{1, kNoValue, {}, {one, one}}, {7, y, {}, {}}};
    if (i == 299) strided.output(y, Map());
  }
  refused(strided, 8 << 20, "memory limit");
  // Scratch rows for a thousand threads.
  Network pooled(1);
  pooled.output(pooled.node(3, {pooled.node(8, {0}, kF32, 1, {0, 0, 0, 0, 1, 65536})}, kF32, 1, {1, 3, 1, 1, 0, 1, 1, 1, 0}, {kNoValue}), Map());
  const Model model(pooled);
  check::that(Session(model, 1, 8, 8, 4 << 20, 1).status == SIGNBIT_OK, "scratch for one thread");
  check::that(Session(model, 1, 8, 8, 4 << 20, 64).status == SIGNBIT_ERROR_ARGUMENT, "scratch for many threads");
}

void test_profile() {
  const builder::File file = everything();
  const Model model(file);
  Session session(model, 1, 16, 16);
  signbit_session_set_profiling(session.handle, 1);
  int64_t dims[4];
  int32_t rank;
  signbit_session_output_shape(session.handle, 0, dims, &rank);
  std::vector<float> y(size_t(dims[0] * dims[1] * dims[2] * dims[3]));
  check::that(session.run(Map(1, 8, 16, 16), y) == SIGNBIT_OK, session.error);
  const std::string profile = signbit_session_profile(session.handle);
  for (const char* part : {"\"layout\": \"b1 2 planes, halo ", "\"layout\": \"f32 32 planes, halo ", "(outside)\"", "\"op\": \"channels\"", "\"kernel\": \"repack_s2x2\"",
                           "\"kernel\": \"bilinear_f32\""})
    check::that(contains(profile, part), "profile");
}

// Settings and timings asked for while another thread runs the session: no torn times, no data race.
void test_profile_of_a_running_session() {
  const builder::File file = everything();
  const Model model(file);
  Session session(model, 4, 64, 64);
  int64_t dims[4];
  int32_t rank;
  signbit_session_output_shape(session.handle, 0, dims, &rank);
  std::vector<float> y(size_t(dims[0] * dims[1] * dims[2] * dims[3]));
  const Map x(4, 8, 64, 64);
  std::atomic<bool> stop{false};
  std::atomic<int> others{0};
  std::thread runner([&] {
    while (!stop) {
      const signbit_status status = session.run(x, y);
      others += status != SIGNBIT_OK && !contains(session.error, "running in another thread");
    }
  });
  bool refused = false, given = false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (int i = 0; !(refused && given) && std::chrono::steady_clock::now() < end; i++) {
    signbit_session_set_profiling(session.handle, i & 1);
    signbit_session_set_checking(session.handle, i & 2);
    (signbit_session_profile(session.handle) ? given : refused) = true;
    std::this_thread::yield();
  }
  stop = true;
  runner.join();
  check::that(refused, "a running session gives no profile");
  check::that(given || signbit_session_profile(session.handle), "a session at rest gives a profile");
  check::that(others == 0, "runs that fail: " + std::to_string(others.load()));
}

}  // namespace

int main() {
  test_metadata();
  test_null_arguments();
  test_cut_messages();
  test_checking();
  test_memory_limit();
  test_greedy_files();
  test_profile();
  test_profile_of_a_running_session();
  return check::report();
}
