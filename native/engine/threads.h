// A small pool: workers sleep between runs, spin briefly between the steps of one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace signbit {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();

  // Split [0, items) into chunks and run `work(begin, end, thread)` on all threads; returns when all are done. Each thread has a share,
  // the same of each run, and helps the others behind it: who takes which chunk varies, and results must not depend on it. Shares are as
  // many items each, or end where `ends` says, an item for each thread.
  void run(int64_t items, const std::function<void(int64_t, int64_t, int)>& work, const int64_t* ends = nullptr);

  int size() const { return int(workers_.size()) + 1; }

 private:
  void worker(int thread);
  void stop();
  void take_chunks(int thread, bool all);

  // What a run changes lies on lines of its own: each that two threads write costs them a journey.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};  // of a thread's units: the first, in the upper half, and one behind the last
  };
  struct alignas(64) Gate {
    std::atomic<uint64_t> state{0};  // the run's number, in the upper half; below it kOpen, and the workers within
    int64_t items = 0, unit = 1;     // of shares
    const std::function<void(int64_t, int64_t, int)>* work = nullptr;
  };
  Gate gate_;
  std::vector<Share> shares_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false};  // a worker that comes late to a run may look while the pool stops
};

}  // namespace signbit
