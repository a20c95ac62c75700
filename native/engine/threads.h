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

  // Split [0, items) into chunks and run `work(begin, end, thread)` on all threads; returns when all are
  // done. Which thread takes which chunk varies; results must not depend on it.
  void run(int64_t items, const std::function<void(int64_t, int64_t, int)>& work);

  int size() const { return int(workers_.size()) + 1; }

 private:
  void worker(int thread);
  void stop();
  void take_chunks(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> round_{0};
  std::atomic<int> gate_{0};  // kOpen, and the workers within a run
  std::atomic<int64_t> next_{0};
  int64_t items_ = 0;
  const std::function<void(int64_t, int64_t, int)>* work_ = nullptr;
  std::atomic<bool> stop_{false};  // a worker that comes late to a run may look while the pool stops
};

}  // namespace signbit
