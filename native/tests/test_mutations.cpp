// Mutated files through the reader: no crash, no hang, no allocation above twice what the file honestly needs.
//
//   test_mutations [files [seed]]      files 0.. of a seed; a failure names its number
//   test_mutations only NUMBER [seed]  that one again
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../fuzz/attempt.h"
#include "../fuzz/mutator.h"
#include "../fuzz/net.h"
#include "../fuzz/seeds.h"
#include "allocations.h"
#include "check.h"

namespace {

constexpr unsigned kSeconds = 10;  // that one file may take; an honest one of this size takes less than a millisecond

// What a file honestly needs while it is read: its own bytes, which the engine copies, and what header and graph say once
// more as structures, which have pointers and vectors where the file has words: `kParsed` bytes for each of the file's. That
// is what the smallest nodes need, of which nothing_but_nodes() is made. A little is needed for any file. Nothing here
// depends on a number that a file merely claims.
constexpr int64_t kParsed = 8, kAnyFile = 4096;

builder::File nothing_but_nodes() {
  fuzz::Net n(1);
  uint32_t v = 0;
  for (int i = 0; i < 2000; i++) {
    v = n.plain(5, {v}, 0, 1, {});
    n.nodes.back().path.clear();
  }
  n.give(v);
  return n;
}

// Each as greedy as it can be in one way.
std::vector<std::pair<std::string, fuzz::Net>> greedy_files() {
  std::vector<std::pair<std::string, fuzz::Net>> files;
  auto large_bits = [](fuzz::Net* n) { return n->bits(n->plain(8, {0}, fuzz::kF32, 1, {0, 0, 0, 0, 255, 257})); };
  // Convolutions of one weight and as many taps as may be, of different strides or all of one.
  for (const bool same : {false, true}) {
    fuzz::Net n(1);
    const uint32_t bits = large_bits(&n), w = n.bytes_of(65535, fuzz::kU8, 0);
    n.tensors[w].bytes.assign(65535, 0x0F);
    const builder::StepDef affine = n.affine(1);
    uint32_t y = 0;
    for (int i = 0; i < 8000; i++) {
      y = n.value(fuzz::kF32, 1);
      const int32_t stride_h = same ? 255 : 255 + i % 3000, stride_w = same ? 257 : 257 + i / 3000;
      n.nodes.push_back({1, "", {bits}, {y}, {1, 1, 255, 257, stride_h, stride_w, 0, 0, 1, 1, 1, 0}, {w}, {affine, n.store(y)}});
    }
    n.give(y);
    files.emplace_back(same ? "taps" : "strides", n);
  }
  // Small steps, each with an epilogue.
  fuzz::Net chain(1);
  uint32_t v = 0;
  for (int i = 0; i < 16380; i++) {
    const uint32_t y = chain.value(fuzz::kF32, 1);
    chain.nodes.push_back({6, "", {v}, {y}, {}, {}, {chain.store(y)}});
    v = y;
  }
  chain.give(v);
  files.emplace_back("chain", chain);
  // A node whose long path every one of its inputs could be named by.
  fuzz::Net wide(1);
  const uint32_t index = wide.add(builder::tensor(1, std::vector<int32_t>{0}));
  wide.give(wide.plain(7, std::vector<uint32_t>(200000, 0), fuzz::kF32, 1, {}, {index}));
  wide.nodes.back().path.assign(4096, 'p');
  files.emplace_back("inputs", wide);
  return files;
}

int64_t honest_need(const fuzz::Bytes& file) {
  return int64_t(file.size()) + kParsed * int64_t(file.size()) + kAnyFile;
}

volatile sig_atomic_t current_file = 0;

void name_current(const char* what) {
  char text[96];
  const int size = std::snprintf(text, sizeof text, "%s: file %ld\n", what, long(current_file));
  if (write(2, text, size_t(size)) < 0) return;
}

struct Watch : fuzz::Observer {
  allocations::Tally reading, session;
  void begin() override { allocations::reset(); }
  void end_reading() override {
    reading = allocations::tally;
    allocations::reset();
  }
  void end_session() override { session = allocations::tally; }
};

struct Stages {
  long files[fuzz::kStages] = {};
  double worst_reading = 0, worst_session = 0, slowest = 0;
  long slowest_file = 0;
};

void try_file(const fuzz::Bytes& file, long number, Stages* stages) {
  current_file = sig_atomic_t(number);
  alarm(kSeconds);
  Watch watch;
  const auto start = std::chrono::steady_clock::now();
  const fuzz::Attempt a = fuzz::attempt(file.data(), file.size(), uint64_t(number), &watch);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  alarm(0);
  stages->files[int(a.stage)]++;
  const std::string name = "file " + std::to_string(number);
  check::that(!a.broken, name + ": " + fuzz::name_of(a.stage) + ": " + a.message);
  const int64_t need = honest_need(file);
  check::that(watch.reading.peak <= 2 * need && watch.reading.largest <= 2 * need,
              name + ": reading " + std::to_string(file.size()) + " bytes took " + std::to_string(watch.reading.peak));
  // The limit covers maps, tables and weights; the plan itself is as large as the graph is.
  const int64_t session_need = int64_t(fuzz::kMemoryLimit) + need;
  check::that(watch.session.peak <= 2 * session_need,
              name + ": a session of " + std::to_string(file.size()) + " bytes took " + std::to_string(watch.session.peak));
  // In all, what was given back included: or a name is put together for each thing that could be wrong with it.
  check::that(watch.reading.total <= 8 * need, name + ": reading " + std::to_string(file.size()) + " bytes asked for " +
                                                   std::to_string(watch.reading.total) + " in all");
  stages->worst_reading = std::max(stages->worst_reading, double(watch.reading.peak) / double(need));
  stages->worst_session = std::max(stages->worst_session, double(watch.session.peak) / double(session_need));
  if (seconds > stages->slowest) {
    stages->slowest = seconds;
    stages->slowest_file = number;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool only = argc > 2 && !std::strcmp(argv[1], "only");
  const long first = only ? std::atol(argv[2]) : 0;
  const long end = only ? first + 1 : argc > 1 ? std::atol(argv[1]) : 20000;
  const int seed_at = only ? 3 : 2;
  const uint64_t seed = argc > seed_at ? uint64_t(std::atoll(argv[seed_at])) : 1;
  std::signal(SIGALRM, [](int) {
    name_current("no answer in time");
    _exit(1);
  });
#if SIGNBIT_SEES_EVERY_ALLOCATION
  __sanitizer_set_death_callback([] { name_current("died"); });
#endif
  allocations::watch();

  std::vector<fuzz::Bytes> good;
  Stages untouched, stages;
  for (const auto& [name, file] : fuzz::seeds()) {
    good.push_back(file.bytes());
    for (long variant = 0; variant < 12; variant++) {
      const fuzz::Attempt a = fuzz::attempt(good.back().data(), good.back().size(), uint64_t(variant));
      check::that(a.stage == fuzz::Stage::kRan, name + " as it is: " + a.message);
      try_file(good.back(), -1, &untouched);
    }
    const auto parts = fuzz::parse(good.back().data(), good.back().size());
    check::that(parts && parts->bytes() == good.back(), name + ": its parts make it again");
  }
  try_file(nothing_but_nodes().bytes(), -1, &untouched);
  for (const auto& [name, file] : greedy_files()) {
    const fuzz::Bytes bytes = file.bytes();
    Stages stage;
    const int before = check::failures;
    try_file(bytes, 1, &stage);
    const bool accepted = stage.files[int(fuzz::Stage::kSession)] + stage.files[int(fuzz::Stage::kRan)] == 1;
    check::that(check::failures == before && accepted, "greedy file \"" + name + "\"");
    untouched.worst_session = std::max(untouched.worst_session, stage.worst_session);
  }
  for (long number = first; number < end; number++)
    try_file(fuzz::mutate(good[size_t(number) % good.size()], seed * 0x100000001 + uint64_t(number)), number, &stages);

  std::printf("%ld files of seed %llu, %zu to begin with\n", end - first, static_cast<unsigned long long>(seed), good.size());
  for (int s = 0; s < fuzz::kStages; s++)
    std::printf("%-16s %10ld  %5.1f %%\n", fuzz::name_of(fuzz::Stage(s)), stages.files[s],
                100.0 * double(stages.files[s]) / double(end - first));
  std::printf("heap at most, of the honest need: %.2f reading, %.2f opening a session; unchanged files %.2f and %.2f%s\n",
              stages.worst_reading, stages.worst_session, untouched.worst_reading, untouched.worst_session,
              SIGNBIT_SEES_EVERY_ALLOCATION ? "" : " (operator new alone)");
  std::printf("slowest: file %ld, %.3f s\n", stages.slowest_file, stages.slowest);
  // A run that never gets past the hash, or never to a refusal behind it, would prove nothing.
  if (!only && end >= 1000)
    for (fuzz::Stage s : {fuzz::Stage::kHash, fuzz::Stage::kGraph, fuzz::Stage::kNode, fuzz::Stage::kSession, fuzz::Stage::kRan})
      check::that(stages.files[int(s)] * 500 >= end, std::string("too few files come as far as ") + fuzz::name_of(s));
  return check::report();
}
