// Every item of a parallel loop runs exactly once, round after round; a pool that gets no memory is an error.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "threads.h"

namespace {

constexpr int kNever = -1;
std::atomic<int> allocations_left{kNever};  // until one fails

}  // namespace

void* operator new(size_t size) {
  if (allocations_left != kNever && allocations_left-- == 0) {
    allocations_left = kNever;
    throw std::bad_alloc();
  }
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace {

void test_items() {
  for (int threads : {1, 2, 3, 8}) {
    signbit::ThreadPool pool(threads);
    check::that(pool.size() == threads, "size");
    for (int round = 0; round < 300; round++) {
      const int items = round % 37;
      // Shares as one likes them: even ones, all to the first thread, all to the last, uneven ones.
      std::vector<int64_t> ends;
      for (int i = 1; i < threads && round % 4; i++) ends.push_back(round % 4 == 1 ? items : round % 4 == 2 ? 0 : int64_t(items) * i * i / (threads * threads));
      std::vector<std::atomic<int>> hits(size_t(items) + 1);
      std::atomic<bool> in_range{true};
      pool.run(
          items,
          [&](int64_t begin, int64_t end, int thread) {
            if (thread < 0 || thread >= threads) in_range = false;
            for (int64_t i = begin; i < end; i++) hits[size_t(i)]++;
          },
          ends.empty() ? nullptr : ends.data());
      bool once = in_range;
      for (int i = 0; i < items; i++) once = once && hits[size_t(i)] == 1;
      check::that(once && hits[size_t(items)] == 0, "threads " + std::to_string(threads) + " items " + std::to_string(items));
    }
  }
}

// More items than shares count: chunks of several, all of them within range and none twice.
void test_many_items() {
  signbit::ThreadPool pool(3);
  const int64_t items = (int64_t(5) << 31) + 7;
  std::atomic<int64_t> count{0};
  std::atomic<uint64_t> twice{0};  // the sum of all items, as far as 64 bits hold it
  pool.run(items, [&](int64_t begin, int64_t end, int) {
    count += end - begin;
    twice += uint64_t(end - begin) * uint64_t(begin + end - 1);
  });
  check::that(count == items && twice == uint64_t(items) * uint64_t(items - 1), "items by the thousand million");
}

// Threads that sleep between runs come when they are called, also to items of others' shares: as many as there are items wait for one
// another, but not for ever.
void test_sleep() {
  constexpr int kThreads = 4;
  signbit::ThreadPool pool(kThreads);
  for (int round = 0; round < 30; round++) {
    const int items = kThreads - round % 3;
    std::atomic<int> come{0};
    std::atomic<bool> all{true};
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    pool.run(items, [&](int64_t, int64_t, int) {
      come++;
      while (come < items && all) {
        std::this_thread::yield();
        if (std::chrono::steady_clock::now() > deadline) all = false;
      }
    });
    check::that(all && come == items, std::to_string(items) + " threads come after a sleep");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Whichever allocation fails: the threads that run already end, and the caller hears of it.
void test_no_memory() {
  int failures = 0;
  for (bool made = false; !made && failures < 100;) {
    allocations_left = failures;
    try {
      const signbit::ThreadPool pool(5);
      allocations_left = kNever;
      made = true;
    } catch (const std::bad_alloc&) {
      failures++;
    }
  }
  check::that(failures >= 5 && failures < 100, std::to_string(failures) + " failed allocations");
}

}  // namespace

int main() {
  test_items();
  test_many_items();
  test_sleep();
  test_no_memory();
  return check::report();
}
