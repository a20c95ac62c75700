// Memory that runs out at any allocation: opening, planning and running give SIGNBIT_ERROR_MEMORY, whole and without a leak.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "../fuzz/net.h"
#include "check.h"
#include "signbit/signbit.h"

namespace {

std::atomic<long> allowed{-1};  // allocations until one fails; below 0: none does
std::atomic<long> live{0};

}  // namespace

void* operator new(size_t size) {
  if (allowed.load() >= 0 && allowed.fetch_sub(1) == 0) throw std::bad_alloc();
  void* p = std::malloc(size ? size : 1);
  if (!p) throw std::bad_alloc();
  live.fetch_add(1);
  return p;
}
// What a sort takes. Its own would come from elsewhere where a sanitizer has one, and not fail.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept {
  if (p) live.fetch_sub(1);
  std::free(p);
}
void operator delete(void* p, size_t) noexcept { operator delete(p); }

namespace {

// A network with a repacked map, a pool, a resize, and an epilogue that the threads share out.
builder::File network() {
  fuzz::Net n(4);
  const uint32_t bits = n.bits(0);
  const uint32_t small = n.conv_f32(bits, 8, {3, 2, 1, 1, 1, 0}), pooled = n.plain(3, {small}, fuzz::kF32, 8, {3, 3, 1, 1, 1, 1, 1, 1, 0}, {fuzz::kNone});
  n.give(n.plain(8, {pooled}, fuzz::kF32, 8, {1, 0, 2, 2, 0, 0}));
  return std::move(n);
}

struct Outcome {
  signbit_status status;
  char message[256];
  bool failed;  // an allocation did
  long left;    // pieces of memory behind it
};

// As far as it goes; what was opened is closed.
Outcome use(const std::vector<uint8_t>& bytes, int threads, long failing, std::vector<float>* y) {
  const std::vector<float> x(4 * 9 * 8, 0.5f);
  float* outputs[] = {y->data()};
  const signbit_session_options options = {1, 9, 8, threads, nullptr, 0};
  Outcome o = {};
  signbit_model* model = nullptr;
  signbit_session* session = nullptr;
  const long before = live;
  allowed = failing;
  o.status = signbit_model_open_memory(bytes.data(), bytes.size(), &model, o.message, sizeof o.message);
  if (o.status == SIGNBIT_OK) o.status = signbit_session_open(model, &options, &session, o.message, sizeof o.message);
  if (o.status == SIGNBIT_OK)
    o.status = signbit_session_run(session, x.data(), SIGNBIT_INPUT_F32_NCHW, outputs, o.message, sizeof o.message);
  o.failed = failing >= 0 && allowed < 0;
  allowed = -1;
  signbit_session_close(session);
  signbit_model_close(model);
  o.left = live - before;
  return o;
}

void test_each_allocation(int threads) {
  const std::vector<uint8_t> bytes = network().bytes();
  std::vector<float> good(8 * 10 * 8), y(good.size());
  check::that(use(bytes, threads, -1, &good).status == SIGNBIT_OK, "with all the memory it wants");
  const std::string name = std::to_string(threads) + " threads, allocation ";
  long failing = 0, absorbed = 0;
  for (;; failing++) {
    std::fill(y.begin(), y.end(), -1.0f);
    const Outcome o = use(bytes, threads, failing, &y);
    check::that(o.left == 0, name + std::to_string(failing) + ": " + std::to_string(o.left) + " pieces of memory left");
    if (!o.failed) break;
    // Sorting asks for room that it can do without.
    const bool done = o.status == SIGNBIT_OK && y == good;
    absorbed += done;
    check::that(done || (o.status == SIGNBIT_ERROR_MEMORY && std::string(o.message) == "out of memory"),
                name + std::to_string(failing) + ": status " + std::to_string(o.status) + ": " + o.message);
    if (check::failures) return;
  }
  check::that(failing > 200, name + std::to_string(failing) + ": few allocations for a model and a session");
  check::that(y == good, "the same result as ever");
  check::that(absorbed < 5, name + std::to_string(absorbed) + " failed without a word");
}

}  // namespace

int main() {
  for (int threads : {1, 2, 5}) test_each_allocation(threads);
  return check::report();
}
