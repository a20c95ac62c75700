// Every item of a parallel loop runs exactly once, round after round.
#include <atomic>
#include <vector>

#include "check.h"
#include "threads.h"

int main() {
  for (int threads : {1, 2, 3, 8}) {
    signbit::ThreadPool pool(threads);
    check::that(pool.size() == threads, "size");
    for (int round = 0; round < 300; round++) {
      const int items = round % 37;
      std::vector<std::atomic<int>> hits(size_t(items) + 1);
      std::atomic<bool> in_range{true};
      pool.run(items, [&](int64_t begin, int64_t end, int thread) {
        if (thread < 0 || thread >= threads) in_range = false;
        for (int64_t i = begin; i < end; i++) hits[size_t(i)]++;
      });
      bool once = in_range;
      for (int i = 0; i < items; i++) once = once && hits[size_t(i)] == 1;
      check::that(once && hits[size_t(items)] == 0, "threads " + std::to_string(threads) + " items " + std::to_string(items));
    }
  }
  return check::report();
}
