// Many sessions, and many threads in few sessions: nothing leaks, nothing races, every result is the right one.
//
//   test_stress [seconds [sessions]]
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>

#include "../fuzz/net.h"
#include "check.h"
#include "signbit/signbit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" size_t __sanitizer_get_current_allocated_bytes();
static size_t heap_bytes() { return __sanitizer_get_current_allocated_bytes(); }
#else
static size_t heap_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}
#endif

namespace {

constexpr int kThreads = 8;
constexpr uint32_t kChannels = 3;

// An 8-bit stem, a residual block with a strided convolution, bits between binary layers, pooling: most kernels.
std::vector<uint8_t> network() {
  fuzz::Net n(kChannels);
  n.normalised = 1;
  n.mean = n.reals(kChannels, 0.4f, 0.6f);
  n.std = n.reals(kChannels, 0.2f, 0.3f);
  const uint32_t q = n.value(4, kChannels);
  n.pointwise(0, {{10, q, {fuzz::word_of(40.0f), 117, 255}, {}}});
  const uint32_t stem = n.conv_f32(q, 16, {3, 1, 1, 1, 1, 117});
  const uint32_t bits = n.value(6, 32), sum = n.value(0, 32);
  n.conv(n.bits(stem), 32, {3, 1, 1, 1, 1, -1}, {{8, bits, {}, {n.integers(32, -40, 0), n.integers(32, 1, 40), n.bytes_of(32, 4, 1)}}});
  const uint32_t shortcut = n.conv_f32(n.bits(stem), 32, {1, 2, 0, 1, 1, 0});
  n.conv(bits, 32, {3, 2, 1, 1, 2, 0},
         {n.affine(32), {2, shortcut, {}, {}}, {3, 0xFFFFFFFF, {}, {n.reals(32, -1, 1), n.reals(32, 0, 1), n.reals(32, -1, 1)}},
          n.store(sum)},
         {shortcut});
  n.give(n.conv_f32(n.bits(sum), 9, {3, 1, 2, 2, 1, 1}));
  n.give(n.plain(5, {sum}, 0, 32, {}), 1);
  return n.bytes();
}

long resident_bytes() {
  long pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

struct Opened {
  signbit_session* session = nullptr;
  signbit_session_options options;
  std::vector<float> input;
  std::vector<size_t> sizes;                 // of the outputs
  std::vector<std::vector<float>> expected;  // outputs

  Opened(signbit_model* model, const signbit_session_options& o) : options(o) {
    char error[512];
    if (signbit_session_open(model, &o, &session, error, sizeof error) != SIGNBIT_OK) {
      std::fprintf(stderr, "%s\n", error);
      std::exit(1);
    }
    input.resize(size_t(o.batch) * kChannels * size_t(o.height) * size_t(o.width));
    for (size_t i = 0; i < input.size(); i++) input[i] = float(int(i * 2654435761u >> 16) % 64 - 32) / 16;
    for (int32_t i = 0; i < signbit_session_output_count(session); i++) {
      int64_t dims[4];
      int32_t rank = 0;
      signbit_session_output_shape(session, i, dims, &rank);
      size_t count = 1;
      for (int32_t k = 0; k < rank; k++) count *= size_t(dims[k]);
      sizes.push_back(count);
    }
  }
  Opened(const Opened&) = delete;
  ~Opened() { signbit_session_close(session); }

  std::vector<std::vector<float>> space() const {
    std::vector<std::vector<float>> outputs;
    for (size_t size : sizes) outputs.emplace_back(size);
    return outputs;
  }
  signbit_status run(std::vector<std::vector<float>>* outputs, char* error, size_t error_size) const {
    std::vector<float*> pointers;
    for (auto& y : *outputs) pointers.push_back(y.data());
    return signbit_session_run(session, input.data(), SIGNBIT_INPUT_F32_NCHW, pointers.data(), error, error_size);
  }
};

// The best set, the others of this CPU, and the best again: as many as there are sessions.
std::vector<std::string> instruction_sets(size_t count) {
  std::vector<std::string> names;
  std::string all = signbit_instruction_sets();
  for (size_t at = 0; at <= all.size();) {
    const size_t comma = std::min(all.find(',', at), all.size());
    names.push_back(all.substr(at, comma - at));
    at = comma + 1;
  }
  const size_t found = names.size();
  while (names.size() < count) names.push_back(names[names.size() % found]);
  return names;
}

void open_and_close(signbit_model* model, int sessions) {
  const std::vector<std::string> sets = instruction_sets(4);
  char error[512];
  size_t heap = 0;
  long resident = 0;
  const int warm = std::min(50, sessions / 2);
  for (int i = 0; i < sessions; i++) {
    if (i == warm) {
      heap = heap_bytes();
      resident = resident_bytes();
    }
    const Opened opened(model, {1 + i % 2, 5 + i % 13, 4 + i % 11, 1 + i % 3, sets[size_t(i) % 4].c_str(), 0});
    auto outputs = opened.space();
    check::that(opened.run(&outputs, error, sizeof error) == SIGNBIT_OK, error);
  }
  const long more = long(heap_bytes()) - long(heap);
  std::printf("%d sessions opened, run and closed: heap %+ld bytes, resident %.1f -> %.1f MB\n", sessions, more,
              double(resident) / 1e6, double(resident_bytes()) / 1e6);
  check::that(more < 65536, "the heap grew by " + std::to_string(more) + " bytes");
}

void meet(signbit_model* model, double seconds) {
  const signbit_session_options shapes[4] = {
      {1, 32, 32, 1, nullptr, 0}, {2, 17, 23, 2, nullptr, 0}, {1, 9, 40, 1, nullptr, 0}, {3, 12, 12, 3, nullptr, 0}};
  const std::vector<std::string> sets = instruction_sets(4);
  std::vector<std::unique_ptr<Opened>> sessions;
  char error[512];
  for (size_t i = 0; i < 4; i++) {
    signbit_session_options options = shapes[i];
    options.isa = sets[i].c_str();
    sessions.push_back(std::make_unique<Opened>(model, options));
    options.isa = "scalar";
    options.threads = 1;
    const Opened alone(model, options);
    sessions[i]->expected = alone.space();
    check::that(alone.run(&sessions[i]->expected, error, sizeof error) == SIGNBIT_OK, error);
  }
  std::atomic<long> runs{0}, refusals{0}, wrong{0}, others{0};
  std::atomic<bool> stop{false};
  auto work = [&](unsigned seed) {
    char message[512];
    std::vector<std::vector<std::vector<float>>> outputs;
    for (const auto& s : sessions) outputs.push_back(s->space());
    while (!stop.load()) {
      seed = seed * 1664525u + 1013904223u;
      const size_t i = seed >> 30;
      for (auto& y : outputs[i]) std::fill(y.begin(), y.end(), -1e30f);
      const signbit_status status = sessions[i]->run(&outputs[i], message, sizeof message);
      if (status == SIGNBIT_OK) {
        runs++;
        for (size_t k = 0; k < outputs[i].size(); k++)
          wrong += std::memcmp(outputs[i][k].data(), sessions[i]->expected[k].data(), 4 * outputs[i][k].size()) != 0;
      } else if (status == SIGNBIT_ERROR_ARGUMENT && std::strstr(message, "running in another thread")) {
        refusals++;
        std::this_thread::yield();
      } else {
        others++;
      }
    }
  };
  const long resident = resident_bytes();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; t++) threads.emplace_back(work, 7 * t + 1);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& t : threads) t.join();
  std::printf("%d threads in 4 sessions (%s, %s, %s, %s), %.0f s: %ld runs, %ld refused, %ld wrong, resident %.1f -> %.1f MB\n",
              kThreads, sets[0].c_str(), sets[1].c_str(), sets[2].c_str(), sets[3].c_str(), seconds, runs.load(),
              refusals.load(), wrong.load(), double(resident) / 1e6, double(resident_bytes()) / 1e6);
  check::that(runs > 0 && refusals > 0, "threads that run and threads that are refused");
  check::that(wrong == 0, "results that differ: " + std::to_string(wrong.load()));
  check::that(others == 0, "other errors: " + std::to_string(others.load()));
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
  const int sessions = argc > 2 ? std::atoi(argv[2]) : 1000;
  const std::vector<uint8_t> file = network();
  char error[512];
  signbit_model* model = nullptr;
  if (signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) != SIGNBIT_OK) {
    std::fprintf(stderr, "%s\n", error);
    return 1;
  }
  open_and_close(model, sessions);
  meet(model, seconds);
  signbit_model_close(model);
  return check::report();
}
