// A caller that flushes subnormal numbers or rounds upward gets the bits that every other caller gets, from tables made when
// a session is opened, from its own thread and from the session's, and finds its mode as it was.
#include <cfenv>

#include "maps.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using maps::kF32;
using maps::kNoValue;
using maps::Map;
using maps::Network;

namespace {

#if defined(__x86_64__)
void flush(bool on) { _mm_setcsr(on ? _mm_getcsr() | 0x8040u : _mm_getcsr() & ~0x8040u); }
#elif defined(__aarch64__)
void flush(bool on) {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  mode = on ? mode | 1u << 24 : mode & ~uint64_t(1u << 24);
  asm volatile("msr fpcr, %0" : : "r"(mode));
}
#endif

// Computed where the compiler cannot do it.
float product(float a, float b) {
  volatile float x = a, y = b;
  return x * y;
}

constexpr float kTiny = 1e-30f, kSmall = 1e-10f, kThird = 1.0f / 3.0f;

// A subnormal product, a rounded one, and what resizing by uneven factors and means give.
Network network() {
  Network net(2);
  auto per_channel = [&](float first, float second) { return net.add(builder::tensor(0, std::vector<float>{first, second})); };
  const uint32_t tiny = net.pointwise(0, 2, {{1, kNoValue, {}, {per_channel(kTiny, kThird), per_channel(0.0f, 0.0f)}}});
  const uint32_t large = net.node(8, {0}, kF32, 2, {1, 0, 0, 0, 301, 307});
  const uint32_t mean = net.node(4, {large}, kF32, 2, {3, 3, 1, 1, 1, 1, 0, 0});
  for (uint32_t v : {tiny, large, mean}) net.output(v, Map());
  net.normalised = 1;
  net.mean = per_channel(0.485f, 0.456f);
  net.std = per_channel(0.229f, 0.224f);
  return net;
}

using Outputs = std::vector<std::vector<float>>;

Outputs run(const signbit_model* model, const char* isa, int threads, signbit_input_kind kind, const void* input, int size) {
  const signbit_session_options options = {1, size, size, threads, isa, 0};
  signbit_session* session = nullptr;
  char error[256] = "";
  check::that(signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK, error);
  Outputs y;
  std::vector<float*> pointers;
  for (int i = 0; i < signbit_session_output_count(session); i++) {
    int64_t shape[4];
    int32_t rank;
    signbit_session_output_shape(session, i, shape, &rank);
    y.emplace_back(size_t(shape[0] * shape[1] * shape[2] * shape[3]));
  }
  for (auto& v : y) pointers.push_back(v.data());
  check::that(signbit_session_run(session, input, kind, pointers.data(), error, sizeof error) == SIGNBIT_OK, error);
  signbit_session_close(session);
  return y;
}

bool same(const Outputs& a, const Outputs& b) {
  for (size_t i = 0; i < a.size(); i++)
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  return true;
}

}  // namespace

int main() {
  const std::vector<uint8_t> file = network().bytes();
  signbit_model* model = nullptr;
  char error[256] = "";
  check::that(signbit_model_open_memory(file.data(), file.size(), &model, error, sizeof error) == SIGNBIT_OK, error);
  const int size = 256;
  const std::vector<float> real(size_t(2 * size * size), kSmall);
  std::vector<uint8_t> pixels(real.size());
  for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(i * 7 + i / 256);
  for (const std::string& isa : maps::instruction_sets())
    for (int threads : {1, 3}) {
      const std::string name = isa + ", threads " + std::to_string(threads);
      auto both = [&] {
        Outputs y = run(model, isa.c_str(), threads, SIGNBIT_INPUT_F32_NCHW, real.data(), size);
        for (auto& v : run(model, isa.c_str(), threads, SIGNBIT_INPUT_U8_NHWC, pixels.data(), size)) y.push_back(v);
        return y;
      };
      const Outputs expected = both();
      check::that(expected[0][0] > 0.0f && expected[0][0] < 1.2e-38f, name + ": a subnormal number");
#if defined(__x86_64__) || defined(__aarch64__)
      flush(true);
      const Outputs flushed = both();
      const float gone = product(kTiny, kSmall);
      flush(false);
      check::that(gone == 0.0f, name + ": the caller's own products are still flushed");
      check::that(same(flushed, expected), name + ": flushing");
      for (const int direction : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        std::fesetround(direction);
        const Outputs rounded = both();
        const int still = std::fegetround();
        std::fesetround(FE_TONEAREST);
        check::that(still == direction, name + ": the caller still rounds its way");
        check::that(same(rounded, expected), name + ": rounding " + std::to_string(direction));
      }
#endif
    }
  signbit_model_close(model);
  return check::report();
}
