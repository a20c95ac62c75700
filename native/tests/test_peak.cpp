// Peaks: the loops do the work that they are credited with, and every instruction set's peaks are numbers. How large
// they are is the machine's affair.
#include "peak.h"

#include <cmath>
#include <vector>

#include "cache.h"
#include "check.h"
#include "error.h"
#include "select.h"
#include "signbit/signbit.h"

using signbit::KernelTable;

namespace {

void test_work(const KernelTable& kernels) {
  const std::string isa = kernels.isa;
  check::that(kernels.peak_look_up_macs % 24 == 0, isa + ": groups of 3 look-ups of 2 output and 4 input channels");
  for (int64_t rounds = 0; rounds <= signbit::kPeakExactRounds; rounds++)
    check::that(kernels.peak_look_ups(rounds) == rounds * kernels.peak_look_up_macs, isa + ": look-ups, " + std::to_string(rounds));
  for (int64_t rounds : {0, 1, 2, 1000})
    check::that(kernels.peak_dots(rounds) == rounds * kernels.peak_dot_macs, isa + ": dot products, " + std::to_string(rounds));
  if (kernels.peak_words)
    for (int64_t rounds : {0, 1, 2, 1000})
      check::that(kernels.peak_words(rounds) == rounds * kernels.peak_word_macs, isa + ": words, " + std::to_string(rounds));
  if (kernels.peak_tiles)
    for (int64_t rounds : {0, 1, 2, 1000})
      check::that(kernels.peak_tiles(rounds) == rounds * kernels.peak_tile_macs, isa + ": tiles, " + std::to_string(rounds));
  for (size_t bytes : {0, 1, 3}) {
    bytes *= signbit::kPeakBlock;
    std::vector<uint8_t> from(bytes + 1), to(bytes + 1, 0), expected;
    for (size_t i = 0; i < from.size(); i++) from[i] = uint8_t(i * 7 + 1);
    expected = from;
    expected[bytes] = 0;  // not of the copy
    kernels.peak_copy(to.data(), from.data(), bytes);
    check::that(to == expected, isa + ": a copy of " + std::to_string(bytes));
  }
}

void test_values(const KernelTable& kernels) {
  const char* isa = kernels.isa;
  for (const char* what : {"look_up", "dot", "word", "tile", "copy_l1", "copy_l2", "copy_l3", "copy_memory", "l1_bytes", "l2_bytes", "l3_bytes"}) {
    double value = -1;
    char error[256];
    const signbit_status status = signbit_measure_peak(isa, what, &value, error, sizeof error);
    const bool may_be_0 = std::string(what) == "tile"   ? !kernels.peak_tiles
                          : std::string(what) == "word" ? !kernels.peak_words
                                                        : std::string(what).find("l3") != std::string::npos && !signbit::cache_bytes(3);
    check::that(status == SIGNBIT_OK && std::isfinite(value) && (value > 0 || (may_be_0 && value == 0)),
                std::string(isa) + ": " + what + ": " + error + std::to_string(value));
  }
}

void test_errors() {
  double value = -1;
  char error[256];
  auto refused = [&](const char* isa, const char* what, double* to, signbit_status status, const char* part) {
    check::that(signbit_measure_peak(isa, what, to, error, sizeof error) == status, part);
    check::that(std::string(error).find(part) != std::string::npos, error);
  };
  refused(nullptr, "look_ups", &value, SIGNBIT_ERROR_ARGUMENT, "peak \"look_ups\" is not known; there are: look_up, dot");
  refused("sse9", "dot", &value, SIGNBIT_ERROR_UNSUPPORTED, "\"sse9\" is not known");
  check::that(value == 0, "no value behind an error");
  refused(nullptr, nullptr, &value, SIGNBIT_ERROR_ARGUMENT, "must not be null");
  refused(nullptr, "dot", nullptr, SIGNBIT_ERROR_ARGUMENT, "must not be null");
}

}  // namespace

int main() {
  for (const KernelTable* kernels : signbit::available_kernels()) {
    test_work(*kernels);
    test_values(*kernels);
  }
  test_errors();
  return check::report();
}
