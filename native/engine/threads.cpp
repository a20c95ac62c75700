#include "threads.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "error.h"
#include "float_mode.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace signbit {
namespace {

constexpr int kOpen = 1 << 30;    // workers may join the run; below it, how many are at work
constexpr int kSpins = 20000;     // some tens of microseconds: longer than the gap between two steps
// Of what is left a thread takes this part of its share: large chunks first, then ever smaller ones, so that a thread that is slow for a
// while, or late, keeps nobody waiting for long.
constexpr int kPartOfShare = 2;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    workers_.reserve(size_t(std::max(threads - 1, 0)));
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { worker(i); });
  } catch (const std::system_error&) {
    stop();
    throw ArgumentError("cannot start " + std::to_string(threads) + " threads; ask for fewer");
  } catch (...) {  // no memory: a thread that is not joined would end the process
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    round_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::take_chunks(int thread) {
  int64_t begin = next_.load(std::memory_order_relaxed);
  while (begin < items_) {
    const int64_t end = begin + std::max<int64_t>(1, (items_ - begin) / (kPartOfShare * size()));
    if (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
    (*work_)(begin, end, thread);
    begin = next_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::worker(int thread) {
  const DefaultFloatMode mode;  // a thread starts with its maker's
  uint32_t seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && round_.load(std::memory_order_acquire) == seen; i++) relax();
    if (round_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_.load() != seen; });
    }
    seen = round_.load(std::memory_order_acquire);
    if (stop_) return;
    int gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) && !gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) relax();
    if (!(gate & kOpen)) continue;  // the others have done it all
    take_chunks(thread);
    gate_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(int64_t items, const std::function<void(int64_t, int64_t, int)>& work) {
  if (workers_.empty() || items <= 1) {
    if (items > 0) work(0, items, 0);
    return;
  }
  items_ = items;
  work_ = &work;
  next_.store(0);
  gate_.store(kOpen, std::memory_order_release);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    round_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  take_chunks(0);
  // Nobody waits for a worker that has not come yet: where others use the machine, its CPU may be taken for a while.
  gate_.fetch_and(~kOpen, std::memory_order_relaxed);
  for (int i = 0; gate_.load(std::memory_order_acquire) > 0; i++) {
    if (i < kSpins)
      relax();
    else
      std::this_thread::yield();  // a worker lost its CPU to somebody else: let it have this one
  }
}

}  // namespace signbit
