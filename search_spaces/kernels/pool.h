// Work of a kernel on the threads of XLA's own pool.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "xla/ffi/api/ffi.h"

namespace flynas {

// Work shared between the caller and the pool's threads. The caller takes work too and waits only for tasks that
// another thread has begun, so a pool whose threads are all busy or blocked cannot make it wait for ever.
template <class P>
struct Shared {
  const P* problem;  // valid while work remains; a thread that comes too late does not look at it
  void (*task)(const P&, int64_t);
  int64_t total, grain;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex lock;
  std::condition_variable finished;
  int64_t done = 0;

  void work() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain);
      if (begin >= total) return;
      const int64_t end = std::min(total, begin + grain);
      try {
        for (int64_t t = begin; t < end; ++t) task(*problem, t);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
      std::lock_guard<std::mutex> hold(lock);
      done += end - begin;
      if (done == total) finished.notify_all();
    }
  }
};

template <class P>
xla::ffi::Error run(xla::ffi::ThreadPool& pool, const P& p, void (*task)(const P&, int64_t), int64_t total,
               int64_t multiplications) {
  auto shared = std::make_shared<Shared<P>>();
  shared->problem = &p;
  shared->task = task;
  shared->total = total;
  // Below about 20 microseconds of work, waking another thread costs more than it saves.
  const int64_t useful = std::max<int64_t>(1, std::min(total, multiplications / 500000));
  const int64_t threads = std::min(std::max<int64_t>(1, pool.num_threads()), useful);
  shared->grain = std::max<int64_t>(1, total / (threads * 8));
  try {
    for (int64_t i = 1; i < threads; ++i) pool.Schedule([shared] { shared->work(); });
  } catch (const std::bad_alloc&) {
    // the threads that there are do it
  }
  shared->work();
  std::unique_lock<std::mutex> hold(shared->lock);
  shared->finished.wait(hold, [&] { return shared->done == shared->total; });
  return shared->failed ? xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, "out of memory")
                        : xla::ffi::Error::Success();
}

inline xla::ffi::Error wrong(const std::string& what) {
  return xla::ffi::Error(xla::ffi::ErrorCode::kInvalidArgument, what);
}

// The result of `call`; XLA expects no exceptions.
template <class F>
xla::ffi::Error guarded(const char* kernel, F call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, std::string(kernel) + ": out of memory");
  }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace flynas
