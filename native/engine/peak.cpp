#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cache.h"
#include "error.h"

namespace signbit {

namespace {

constexpr int kRepeats = 15, kLeastRepeats = 4;
constexpr double kSeconds = 2e-3;   // of a repeat: long for the clock, short for the scheduler
constexpr double kTogether = 0.02;  // of all repeats but the least
constexpr size_t kLeastMemory = size_t(64) << 20, kMostMemory = size_t(256) << 20;

// Seconds of one round at best. A peak is a maximum: whatever else the machine does only ever slows a repeat down.
template <typename Work>
double best_seconds(Work work) {
  using Clock = std::chrono::steady_clock;
  auto timed = [&](int64_t rounds) {
    const auto start = Clock::now();
    work(rounds);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  int64_t rounds = 1;
  double seconds = timed(rounds);
  while (seconds < kSeconds) {
    rounds *= 2;
    seconds = timed(rounds);
  }
  double together = 0, best = seconds;
  for (int i = 0; i < kRepeats && (i < kLeastRepeats || together < kTogether); i++) {
    seconds = timed(rounds);
    together += seconds;
    best = std::min(best, seconds);
  }
  return best / double(rounds);
}

// Bytes read and written a second, in GB, where source and destination take `bytes` together.
double copy_speed(const KernelTable& kernels, size_t bytes) {
  const size_t half = bytes / 2 / kPeakBlock * kPeakBlock;
  // Half a page apart: CPUs take a load for one of a byte just stored where the last 12 bits of the addresses agree.
  const size_t apart = (half + 4095) / 4096 * 4096 + 2048;
  const std::unique_ptr<uint8_t, decltype(&std::free)> memory(
      static_cast<uint8_t*>(std::aligned_alloc(4096, (apart + half + 4095) / 4096 * 4096)), &std::free);
  if (!memory) throw std::bad_alloc();
  uint8_t* from = memory.get();
  std::memset(from, 1, apart + half);  // pages of their own
  const double seconds = best_seconds([&](int64_t rounds) {
    for (int64_t i = 0; i < rounds; i++) kernels.peak_copy(from + apart, from, half);
  });
  return 2e-9 * double(half) / seconds;
}

// Large enough to miss the cache inside, small enough to leave room for what else is in its own.
size_t middle_of(int level) {
  if (level == 1) return cache_bytes(1) / 2;
  return std::max(2 * cache_bytes(level - 1), cache_bytes(level) / (level == 2 ? 2 : 4));  // others share the third
}

}  // namespace

double measure_peak(const KernelTable& kernels, const std::string& what) {
  if (what == "look_up") return 1e-9 * double(kernels.peak_look_up_macs) / best_seconds(kernels.peak_look_ups);
  if (what == "dot") return 1e-9 * double(kernels.peak_dot_macs) / best_seconds(kernels.peak_dots);
  if (what == "word") return kernels.peak_words ? 1e-9 * double(kernels.peak_word_macs) / best_seconds(kernels.peak_words) : 0;
  if (what == "tile") return kernels.peak_tiles ? 1e-9 * double(kernels.peak_tile_macs) / best_seconds(kernels.peak_tiles) : 0;
  if (what == "copy_l1") return copy_speed(kernels, middle_of(1));
  if (what == "copy_l2") return copy_speed(kernels, middle_of(2));
  if (what == "copy_l3") return cache_bytes(3) ? copy_speed(kernels, middle_of(3)) : 0;
  if (what == "copy_memory")
    return copy_speed(kernels, std::min(kMostMemory, std::max(kLeastMemory, 4 * cache_bytes(3))));
  if (what == "l1_bytes") return double(cache_bytes(1));
  if (what == "l2_bytes") return double(cache_bytes(2));
  if (what == "l3_bytes") return double(cache_bytes(3));
  throw ArgumentError("peak \"" + what + "\" is not known; there are: look_up, dot, word, tile, copy_l1, copy_l2, copy_l3, "
                      "copy_memory, l1_bytes, l2_bytes, l3_bytes");
}

}  // namespace signbit
