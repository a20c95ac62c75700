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

constexpr uint64_t kOpen = uint64_t(1) << 31;     // workers may join the run
constexpr uint64_t kRun = uint64_t(1) << 32;      // runs count in these
constexpr uint64_t kWithin = kOpen - 1;           // the workers within a run
constexpr int kSpins = 20000;  // up to a millisecond, where a pause takes 140 cycles: longer than the gap between two steps

uint64_t share_of(int64_t begin, int64_t end) { return uint64_t(begin) << 32 | uint64_t(end); }

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(size_t(std::max(threads, 1))) {
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
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

// From a share, half of what is left there: its owner from the front, others from the back. So chunks become ever smaller, and a thread
// that is slow for a while, or late, keeps nobody waiting for long; and one that is neither sees the same rows of each map, which are in
// its own cache. The last unit of another's share is left to its owner, who mostly is there soon and need not fetch what it reads, unless
// `all` is wanted: the owner may not have come.
void ThreadPool::take_chunks(int thread, bool all) {
  const int64_t items = gate_.items, unit = gate_.unit;
  const std::function<void(int64_t, int64_t, int)>& work = *gate_.work;
  for (int k = 0; k < size(); k++) {
    std::atomic<uint64_t>& share = shares_[size_t((thread + k) % size())].left;
    uint64_t left = share.load(std::memory_order_relaxed);
    while (true) {
      const int64_t begin = int64_t(left >> 32), end = int64_t(left & 0xFFFFFFFF);
      if (begin >= end) break;
      const int64_t count = (end - begin + (k == 0 || all)) / 2, from = k == 0 ? begin : end - count;
      if (count == 0) break;
      const uint64_t rest = k == 0 ? share_of(begin + count, end) : share_of(begin, from);
      if (!share.compare_exchange_weak(left, rest, std::memory_order_relaxed)) continue;
      work(from * unit, std::min((from + count) * unit, items), thread);
      left = share.load(std::memory_order_relaxed);
    }
  }
}

void ThreadPool::worker(int thread) {
  const DefaultFloatMode mode;  // a thread starts with its maker's
  uint64_t seen = 0;            // the last run that this thread was in
  const auto is_new = [&](uint64_t state) { return (state & kOpen) && (state ^ seen) >= kRun; };
  while (true) {
    uint64_t state = gate_.state.load(std::memory_order_relaxed);
    for (int i = 0; i < kSpins && !is_new(state) && !stop_.load(std::memory_order_relaxed); i++) {
      relax();
      state = gate_.state.load(std::memory_order_relaxed);
    }
    if (!is_new(state)) {
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_++;  // before the last look at the gate; `run` opens it before it looks for sleepers
      wake_.wait(lock, [&] { return stop_ || is_new(state = gate_.state.load()); });
      asleep_--;
    }
    if (stop_) return;
    while (is_new(state))
      if (gate_.state.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) {
        seen = state;
        take_chunks(thread, false);
        gate_.state.fetch_sub(1, std::memory_order_release);
        break;
      }
  }
}

void ThreadPool::run(int64_t items, const std::function<void(int64_t, int64_t, int)>& work, const int64_t* ends) {
  if (workers_.empty() || items <= 1) {
    if (items > 0) work(0, items, 0);
    return;
  }
  gate_.items = items;
  gate_.work = &work;
  gate_.unit = 1 + (items >> 31);  // shares count in 32 bits
  const int64_t units = (items + gate_.unit - 1) / gate_.unit;
  int64_t begin = 0;
  for (int i = 0; i < size(); i++) {
    const int64_t end = i + 1 == size() ? units : ends ? ends[i] / gate_.unit : units * (i + 1) / size();
    shares_[size_t(i)].left.store(share_of(begin, end), std::memory_order_relaxed);
    begin = end;
  }
  const uint64_t state = (gate_.state.load(std::memory_order_relaxed) & ~(kRun - 1)) + kRun;
  gate_.state.store(state | kOpen);
  if (asleep_ > 0) {
    { std::lock_guard<std::mutex> lock(mutex_); }  // who has looked at the gate already is waiting by now
    wake_.notify_all();
  }
  take_chunks(0, false);
  // Nobody waits for a worker that has not come yet: where others use the machine, its CPU may be taken for a while.
  if ((gate_.state.load(std::memory_order_relaxed) & kWithin) < workers_.size()) take_chunks(0, true);
  uint64_t now = gate_.state.fetch_and(~kOpen, std::memory_order_acquire);
  for (int i = 0; (now & kWithin) > 0; i++) {
    if (i < kSpins)
      relax();
    else
      std::this_thread::yield();  // a worker lost its CPU to somebody else: let it have this one
    now = gate_.state.load(std::memory_order_acquire);
  }
}

}  // namespace signbit
