// Depthwise convolution for XLA's CPU backend: forward, gradient of the input, gradient of the weights.
//
// Float32, NHWC, SAME padding as XLA places it (the odd row or column goes to the end), any kernel size and stride.
// `active` is a scalar operand: only the leading `active` channels are computed, the others are written as zero.
//
// All three work on blocks of 16 channels. A strip of rows of one sample is first copied into a small buffer
// [rows][columns][16] with the zero border and the missing channels filled in, so that the arithmetic has no bounds
// to check and reads contiguous memory. The input's gradient is the same convolution over the output's gradient: one
// for each of the stride * stride phases of the input, with the taps that reach this phase, reversed.
//
// Threads come from XLA's own pool. The result does not depend on their number: every output is computed by one task,
// and the weights' gradient is summed in a fixed order over a number of sample groups that depends on the batch alone.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kBlock = 16;               // channels computed together
constexpr int64_t kTile = 8;                 // output columns held in registers
constexpr int64_t kBand = 4;                 // blocks of one task: memory is read and written 256 bytes at a time
constexpr int64_t kStripFloats = 48 * 1024;  // a band of 192 KiB stays in the second-level cache
constexpr int64_t kGroups = 16;              // sample groups of the weights' gradient
constexpr int64_t kTaps = 7;                 // taps of one kernel row held in registers

// A buffer that lives as long as its thread; grows, never shrinks.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  float* at_least(int64_t floats) {
    if (floats > size_) {
      std::free(data_);
      const size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + 63) / 64 * 64;
      data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
      if (data_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
      size_ = floats;
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  int64_t size_ = 0;
};

struct Problem {
  int64_t batch, in_h, in_w, channels, out_h, out_w, kernel_h, kernel_w, stride, active;
  int64_t pad_h, pad_w;  // zero rows above, zero columns on the left
  const float* x;        // [batch, in_h, in_w, channels]
  const float* w;        // [kernel_h, kernel_w, channels]
  const float* g;        // gradient of y
  float* y;              // [batch, out_h, out_w, channels]
  float* dx;             // shape of x
  float* dw;             // shape of w
  float* partial;        // [groups, kernel_h, kernel_w, channels]
  int64_t groups;
  int64_t strip_rows, strips;
  int64_t bands;

  // Channels from `first` on, `most` at most: how many are active, how many there are.
  int64_t active_from(int64_t first, int64_t most) const {
    return std::max<int64_t>(0, std::min(most, active - first));
  }
  int64_t channels_from(int64_t first, int64_t most) const { return std::min(most, channels - first); }
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t pad_before(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return std::max<int64_t>(0, (out - 1) * stride + kernel - in) / 2;
}

// The vector type of `Bytes` bytes (a compiler extension of GCC and Clang). GCC drops the attribute from template
// arguments, so the type is wrapped.
template <int Bytes>
struct Vec {
  typedef float type __attribute__((vector_size(Bytes)));
  typedef float loose __attribute__((vector_size(Bytes), aligned(4)));
  static constexpr int64_t lanes = Bytes / 4;
};

// `count` channels from `src` [height, width, channels] (already at the first of them) into blocks of 16,
// `dst` [blocks][rows][cols][16]; rows and columns outside the image, and the rest of the last block, become zero.
template <int Bytes>
INLINE void fill(float* __restrict dst, const float* __restrict src, int64_t height, int64_t width, int64_t channels,
                 int64_t count, int64_t row0, int64_t rows, int64_t col0, int64_t cols) {
  using L = typename Vec<Bytes>::loose;
  const int64_t first = std::min(cols, std::max<int64_t>(0, -col0));
  const int64_t last = std::max(first, std::min(cols, width - col0));
  const int64_t plane = rows * cols * kBlock, blocks = ceil_div(count, kBlock), tail = count % kBlock;
  const int64_t whole = count / kBlock;
  for (int64_t r = 0; r < rows; ++r) {
    float* line = dst + r * cols * kBlock;
    const int64_t row = row0 + r;
    const bool inside = row >= 0 && row < height;
    const int64_t begin = inside ? first : cols, end = inside ? last : cols;
    for (int64_t b = 0; b < blocks; ++b) {
      std::memset(line + b * plane, 0, sizeof(float) * begin * kBlock);
      std::memset(line + b * plane + end * kBlock, 0, sizeof(float) * (cols - end) * kBlock);
    }
    if (!inside) continue;
    const float* from = src + (row * width + col0 + first) * channels;
    float* to = line + first * kBlock;
    for (int64_t c = first; c < last; ++c, from += channels, to += kBlock) {
      for (int64_t b = 0; b < whole; ++b)
        for (int64_t p = 0; p < kBlock; p += Vec<Bytes>::lanes)
          *reinterpret_cast<L*>(to + b * plane + p) = *reinterpret_cast<const L*>(from + b * kBlock + p);
      if (tail != 0) {
        float* rest = to + whole * plane;
        for (int64_t p = 0; p < tail; ++p) rest[p] = from[whole * kBlock + p];
        for (int64_t p = tail; p < kBlock; ++p) rest[p] = 0.0f;
      }
    }
  }
}

// `left` (at most Tile) outputs of one row: out[u] = sum over taps of src[a][u * step + b] * w[a][b].
template <int Bytes, int Tile>
INLINE void conv_tile(const float* src, int64_t cols, int64_t step, const float* w, int64_t taps_h, int64_t taps_w,
                      float* out, int64_t out_step, int64_t left, int64_t count) {
  using V = typename Vec<Bytes>::type;
  using L = typename Vec<Bytes>::loose;
  for (int64_t p = 0; p < kBlock; p += Vec<Bytes>::lanes) {
    V sum[Tile];
    for (int t = 0; t < Tile; ++t) sum[t] = V{};
    for (int64_t a = 0; a < taps_h; ++a) {
      const float* line = src + a * cols * kBlock + p;
      const float* tap = w + a * taps_w * kBlock + p;
      for (int64_t b = 0; b < taps_w; ++b) {
        const V weight = *reinterpret_cast<const V*>(tap + b * kBlock);
        const float* at = line + b * kBlock;
#pragma GCC unroll 8
        for (int t = 0; t < Tile; ++t) sum[t] += weight * *reinterpret_cast<const V*>(at + t * step * kBlock);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < Tile; ++t) {
      if (t >= left) break;
      float* to = out + t * out_step + p;
      if (p + Vec<Bytes>::lanes <= count) {
        *reinterpret_cast<L*>(to) = sum[t];
      } else {
        for (int64_t q = 0; p + q < count && q < Vec<Bytes>::lanes; ++q) to[q] = sum[t][q];
      }
    }
  }
}

// `outputs` outputs of one row for all blocks of `count` channels, whose images and taps lie `plane` and `taps` apart.
template <int Bytes>
INLINE void conv_row(const float* src, int64_t plane, int64_t cols, int64_t step, const float* w, int64_t taps,
                     int64_t taps_h, int64_t taps_w, float* out, int64_t out_step, int64_t outputs, int64_t count) {
  for (int64_t u = 0; u < outputs;) {
    const int64_t left = outputs - u, tile = left > 4 ? 8 : left > 2 ? 4 : 2;
    for (int64_t c = 0; c < count; c += kBlock) {
      const float* at = src + c / kBlock * plane + u * step * kBlock;
      const float* with = w + c / kBlock * taps;
      float* to = out + u * out_step + c;
      const int64_t some = std::min(kBlock, count - c);
      if (tile == 8) {
        conv_tile<Bytes, 8>(at, cols, step, with, taps_h, taps_w, to, out_step, left, some);
      } else if (tile == 4) {
        conv_tile<Bytes, 4>(at, cols, step, with, taps_h, taps_w, to, out_step, left, some);
      } else {
        conv_tile<Bytes, 2>(at, cols, step, with, taps_h, taps_w, to, out_step, left, some);
      }
    }
    u += tile;
  }
}

// Zeros in channels [from, width) of `pixels` consecutive pixels; `out` is at the first channel of the task.
INLINE void clear(float* out, int64_t pixels, int64_t channels, int64_t from, int64_t width) {
  if (from >= width) return;
  for (int64_t i = 0; i < pixels; ++i) std::memset(out + i * channels + from, 0, sizeof(float) * (width - from));
}

thread_local Scratch scratch;

template <int Bytes>
INLINE void forward_task(const Problem& p, int64_t task) {
  const int64_t band = task % p.bands, strip = task / p.bands % p.strips, n = task / p.bands / p.strips;
  const int64_t c0 = band * kBand * kBlock, count = p.active_from(c0, kBand * kBlock);
  const int64_t first = strip * p.strip_rows, rows = std::min(p.strip_rows, p.out_h - first);
  float* y = p.y + ((n * p.out_h + first) * p.out_w) * p.channels + c0;
  clear(y, rows * p.out_w, p.channels, count, p.channels_from(c0, kBand * kBlock));
  if (count == 0) return;
  const int64_t plane_rows = (rows - 1) * p.stride + p.kernel_h;
  const int64_t cols = (p.out_w - 1) * p.stride + p.kernel_w;
  const int64_t taps = p.kernel_h * p.kernel_w * kBlock, plane_size = plane_rows * cols * kBlock;
  const int64_t blocks = ceil_div(count, kBlock);
  float* w = scratch.at_least(blocks * (taps + plane_size) + kTile * p.stride * kBlock);
  float* plane = w + blocks * taps;
  fill<Bytes>(w, p.w + c0, p.kernel_h, p.kernel_w, p.channels, count, 0, p.kernel_h, 0, p.kernel_w);
  fill<Bytes>(plane, p.x + n * p.in_h * p.in_w * p.channels + c0, p.in_h, p.in_w, p.channels, count,
              first * p.stride - p.pad_h, plane_rows, -p.pad_w, cols);
  for (int64_t r = 0; r < rows; ++r)
    conv_row<Bytes>(plane + r * p.stride * cols * kBlock, plane_size, cols, p.stride, w, taps, p.kernel_h, p.kernel_w,
                    y + r * p.out_w * p.channels, p.channels, p.out_w, count);
}

// With h + pad_h = stride * q + phase, input row h receives tap (phase + stride * m) from output row q - m.
template <int Bytes>
INLINE void input_gradient_task(const Problem& p, int64_t task) {
  const int64_t band = task % p.bands, strip = task / p.bands % p.strips, n = task / p.bands / p.strips;
  const int64_t c0 = band * kBand * kBlock, count = p.active_from(c0, kBand * kBlock), s = p.stride;
  const int64_t first = strip * p.strip_rows, rows = std::min(p.strip_rows, p.in_h - first);
  float* dx = p.dx + ((n * p.in_h + first) * p.in_w) * p.channels + c0;
  clear(dx, rows * p.in_w, p.channels, count, p.channels_from(c0, kBand * kBlock));
  if (count == 0) return;
  const int64_t reach_h = ceil_div(p.kernel_h, s) - 1, reach_w = ceil_div(p.kernel_w, s) - 1;
  const int64_t row0 = (first + p.pad_h) / s - reach_h, col0 = p.pad_w / s - reach_w;
  const int64_t plane_rows = (first + rows - 1 + p.pad_h) / s - row0 + 1;
  const int64_t cols = (p.in_w - 1 + p.pad_w) / s - col0 + 1;
  const int64_t phase_taps = (reach_h + 1) * (reach_w + 1) * kBlock, taps = s * s * phase_taps;
  const int64_t plane_size = plane_rows * cols * kBlock, blocks = ceil_div(count, kBlock);
  float* w = scratch.at_least(blocks * (taps + plane_size) + kTile * kBlock);
  float* plane = w + blocks * taps;
  for (int64_t c = 0; c < count; c += kBlock) {
    const int64_t some = std::min(kBlock, count - c);
    for (int64_t phase_h = 0; phase_h < s; ++phase_h) {
      for (int64_t phase_w = 0; phase_w < s; ++phase_w) {
        const int64_t taps_h = ceil_div(std::max<int64_t>(0, p.kernel_h - phase_h), s);
        const int64_t taps_w = ceil_div(std::max<int64_t>(0, p.kernel_w - phase_w), s);
        float* to = w + c / kBlock * taps + (phase_h * s + phase_w) * phase_taps;
        for (int64_t a = 0; a < taps_h; ++a)
          for (int64_t b = 0; b < taps_w; ++b, to += kBlock) {
            const int64_t i = phase_h + s * (taps_h - 1 - a), j = phase_w + s * (taps_w - 1 - b);
            const float* from = p.w + (i * p.kernel_w + j) * p.channels + c0 + c;
            for (int64_t q = 0; q < kBlock; ++q) to[q] = q < some ? from[q] : 0.0f;
          }
      }
    }
  }
  fill<Bytes>(plane, p.g + n * p.out_h * p.out_w * p.channels + c0, p.out_h, p.out_w, p.channels, count, row0,
              plane_rows, col0, cols);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t phase_h = (first + r + p.pad_h) % s, q_h = (first + r + p.pad_h) / s;
    const int64_t taps_h = ceil_div(std::max<int64_t>(0, p.kernel_h - phase_h), s);
    for (int64_t start = 0; start < std::min(s, p.in_w); ++start) {
      const int64_t phase_w = (start + p.pad_w) % s, q_w = (start + p.pad_w) / s;
      const int64_t taps_w = ceil_div(std::max<int64_t>(0, p.kernel_w - phase_w), s);
      // A phase that no tap reaches has no rows or columns to start from; its sums are empty.
      const int64_t row = taps_h > 0 ? q_h - (taps_h - 1) - row0 : 0, col = taps_w > 0 ? q_w - (taps_w - 1) - col0 : 0;
      conv_row<Bytes>(plane + (row * cols + col) * kBlock, plane_size, cols, 1,
                      w + (phase_h * s + phase_w) * phase_taps, taps, taps_h, taps_w,
                      dx + (r * p.in_w + start) * p.channels, s * p.channels, ceil_div(p.in_w - start, s), count);
    }
  }
}

// Adds to `sum` [Taps][16] the products of `g` [rows][out_w][16] with the columns j .. j + Taps of the plane.
template <int Bytes, int Taps>
INLINE void weight_taps(const float* plane, int64_t cols, int64_t stride, const float* g, int64_t rows, int64_t out_w,
                        float* sum) {
  using V = typename Vec<Bytes>::type;
  for (int64_t p = 0; p < kBlock; p += Vec<Bytes>::lanes) {
    V even[Taps], odd[Taps];  // two sums, so that consecutive products do not wait for each other
    for (int j = 0; j < Taps; ++j) even[j] = odd[j] = V{};
    for (int64_t r = 0; r < rows; ++r) {
      const float* line = plane + r * stride * cols * kBlock + p;
      const float* at = g + r * out_w * kBlock + p;
      int64_t u = 0;
      for (; u + 2 <= out_w; u += 2) {
        const V g0 = *reinterpret_cast<const V*>(at + u * kBlock), g1 = *reinterpret_cast<const V*>(at + (u + 1) * kBlock);
        const float* x0 = line + u * stride * kBlock;
        const float* x1 = x0 + stride * kBlock;
#pragma GCC unroll 8
        for (int j = 0; j < Taps; ++j) {
          even[j] += g0 * *reinterpret_cast<const V*>(x0 + j * kBlock);
          odd[j] += g1 * *reinterpret_cast<const V*>(x1 + j * kBlock);
        }
      }
      if (u < out_w) {
        const V g0 = *reinterpret_cast<const V*>(at + u * kBlock);
        const float* x0 = line + u * stride * kBlock;
#pragma GCC unroll 8
        for (int j = 0; j < Taps; ++j) even[j] += g0 * *reinterpret_cast<const V*>(x0 + j * kBlock);
      }
    }
    for (int j = 0; j < Taps; ++j) *reinterpret_cast<V*>(sum + j * kBlock + p) += even[j] + odd[j];
  }
}

template <int Bytes>
INLINE void weight_gradient_task(const Problem& p, int64_t task) {
  const int64_t blocks = ceil_div(p.channels, kBlock), c0 = task % blocks * kBlock, group = task / blocks;
  const int64_t count = p.active_from(c0, kBlock), kk = p.kernel_h * p.kernel_w;
  float* out = p.partial + group * kk * p.channels + c0;
  clear(out, kk, p.channels, count, p.channels_from(c0, kBlock));
  if (count == 0) return;
  const int64_t cols = (p.out_w - 1) * p.stride + p.kernel_w;
  const int64_t most_rows = (p.strip_rows - 1) * p.stride + p.kernel_h;
  float* sum = scratch.at_least((kk + most_rows * cols + p.strip_rows * p.out_w) * kBlock);
  float* plane = sum + kk * kBlock;
  float* g = plane + most_rows * cols * kBlock;
  std::memset(sum, 0, sizeof(float) * kk * kBlock);
  for (int64_t n = group * p.batch / p.groups; n < (group + 1) * p.batch / p.groups; ++n) {
    for (int64_t first = 0; first < p.out_h; first += p.strip_rows) {
      const int64_t rows = std::min(p.strip_rows, p.out_h - first);
      fill<Bytes>(plane, p.x + n * p.in_h * p.in_w * p.channels + c0, p.in_h, p.in_w, p.channels, count,
                  first * p.stride - p.pad_h, (rows - 1) * p.stride + p.kernel_h, -p.pad_w, cols);
      fill<Bytes>(g, p.g + n * p.out_h * p.out_w * p.channels + c0, p.out_h, p.out_w, p.channels, count, first, rows, 0,
                  p.out_w);
      for (int64_t i = 0; i < p.kernel_h; ++i) {
        for (int64_t j = 0; j < p.kernel_w; j += kTaps) {
          const float* at = plane + (i * cols + j) * kBlock;
          float* to = sum + (i * p.kernel_w + j) * kBlock;
          switch (std::min(kTaps, p.kernel_w - j)) {
            case 1: weight_taps<Bytes, 1>(at, cols, p.stride, g, rows, p.out_w, to); break;
            case 2: weight_taps<Bytes, 2>(at, cols, p.stride, g, rows, p.out_w, to); break;
            case 3: weight_taps<Bytes, 3>(at, cols, p.stride, g, rows, p.out_w, to); break;
            case 4: weight_taps<Bytes, 4>(at, cols, p.stride, g, rows, p.out_w, to); break;
            case 5: weight_taps<Bytes, 5>(at, cols, p.stride, g, rows, p.out_w, to); break;
            case 6: weight_taps<Bytes, 6>(at, cols, p.stride, g, rows, p.out_w, to); break;
            default: weight_taps<Bytes, 7>(at, cols, p.stride, g, rows, p.out_w, to); break;
          }
        }
      }
    }
  }
  for (int64_t k = 0; k < kk; ++k)
    for (int64_t c = 0; c < count; ++c) out[k * p.channels + c] = sum[k * kBlock + c];
}

// One copy of the three tasks for each instruction set; the best one is chosen when the library is first used.
struct Tasks {
  void (*forward)(const Problem&, int64_t);
  void (*input_gradient)(const Problem&, int64_t);
  void (*weight_gradient)(const Problem&, int64_t);
  const char* name;
};

#define DEFINE_TASKS(NAME, BYTES, ATTRIBUTE)                                                                    \
  ATTRIBUTE void NAME##_forward(const Problem& p, int64_t t) { forward_task<BYTES>(p, t); }                     \
  ATTRIBUTE void NAME##_input_gradient(const Problem& p, int64_t t) { input_gradient_task<BYTES>(p, t); }       \
  ATTRIBUTE void NAME##_weight_gradient(const Problem& p, int64_t t) { weight_gradient_task<BYTES>(p, t); }     \
  constexpr Tasks NAME{NAME##_forward, NAME##_input_gradient, NAME##_weight_gradient, #NAME};

DEFINE_TASKS(baseline, 16, )
#if defined(__x86_64__)
DEFINE_TASKS(avx2, 32, __attribute__((target("avx2,fma"))))
DEFINE_TASKS(avx512, 64, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))))
#endif

const Tasks& tasks() {
  static const Tasks chosen = [] {
#if defined(__x86_64__)
    // FLYNAS_KERNEL_ISA can only lower the choice: for tests and for comparing.
    const char* wish = std::getenv("FLYNAS_KERNEL_ISA");
    const bool no_avx512 = wish != nullptr && std::strcmp(wish, "avx512") != 0;
    const bool no_avx2 = no_avx512 && std::strcmp(wish, "avx2") != 0;
    __builtin_cpu_init();
    if (!no_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
      return avx512;
    if (!no_avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
    return baseline;
  }();
  return chosen;
}

// Work shared between the caller and the pool's threads. The caller takes work too and waits only for tasks that
// another thread has begun, so a pool whose threads are all busy or blocked cannot make it wait for ever.
struct Shared {
  const Problem* problem;  // valid while work remains; a helper that comes too late does not look at it
  void (*task)(const Problem&, int64_t);
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

ffi::Error run(ffi::ThreadPool& pool, const Problem& p, void (*task)(const Problem&, int64_t), int64_t total,
               int64_t multiplications) {
  auto shared = std::make_shared<Shared>();
  shared->problem = &p;
  shared->task = task;
  shared->total = total;
  // Below about 20 microseconds of work, waking another thread costs more than it saves.
  const int64_t useful = std::max<int64_t>(1, std::min(total, multiplications / 500000));
  const int64_t threads = std::min(std::max<int64_t>(1, pool.num_threads()), useful);
  shared->grain = std::max<int64_t>(1, total / (threads * 8));
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([shared] { shared->work(); });
  shared->work();
  std::unique_lock<std::mutex> hold(shared->lock);
  shared->finished.wait(hold, [&] { return shared->done == shared->total; });
  return shared->failed ? ffi::Error(ffi::ErrorCode::kResourceExhausted, "depthwise: out of memory")
                        : ffi::Error::Success();
}

using Tensor = ffi::Buffer<ffi::F32>;
using Scalar = ffi::Buffer<ffi::S32>;

// The strip height so that one task's part of either image fits kStripFloats.
void cut_strips(Problem& p, int64_t rows) {
  const int64_t line = std::max(p.in_w + p.kernel_w, p.out_w * p.stride + p.kernel_w) * kBand * kBlock * p.stride;
  p.strip_rows = std::min(rows, std::max<int64_t>(4, kStripFloats / line));
  p.strips = ceil_div(rows, p.strip_rows);
  p.bands = ceil_div(p.channels, kBand * kBlock);
}

template <class X, class W, class Y>
ffi::Error describe(Problem& p, const X& x, const W& w, const Y& y, const Scalar& active, int32_t stride) {
  p = Problem{};
  const bool ranks = x.size() == 4 && w.size() == 3 && y.size() == 4;
  if (!ranks || stride < 1 || active.element_count() != 1 || x[0] != y[0] || x[3] != y[3] || x[3] != w[2] ||
      y[1] != ceil_div(x[1], stride) || y[2] != ceil_div(x[2], stride))
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "depthwise: shapes, stride or active do not fit together");
  p.batch = x[0], p.in_h = x[1], p.in_w = x[2], p.channels = x[3], p.out_h = y[1], p.out_w = y[2];
  p.kernel_h = w[0], p.kernel_w = w[1], p.stride = stride;
  p.active = std::min<int64_t>(p.channels, std::max<int64_t>(0, active.typed_data()[0]));
  p.pad_h = pad_before(p.in_h, p.out_h, p.kernel_h, stride);
  p.pad_w = pad_before(p.in_w, p.out_w, p.kernel_w, stride);
  return ffi::Error::Success();
}

int64_t work_of(const Problem& p) {
  return p.batch * p.out_h * p.out_w * p.kernel_h * p.kernel_w * p.active;
}

ffi::Error Forward(ffi::ThreadPool pool, Tensor x, Tensor w, Scalar active, ffi::Result<Tensor> y, int32_t stride) {
  Problem p;
  ffi::Error error = describe(p, x.dimensions(), w.dimensions(), y->dimensions(), active, stride);
  if (error.failure() || y->element_count() == 0) return error;
  p.x = x.typed_data(), p.w = w.typed_data(), p.y = y->typed_data();
  cut_strips(p, p.out_h);
  return run(pool, p, tasks().forward, p.batch * p.strips * p.bands, work_of(p));
}

ffi::Error InputGradient(ffi::ThreadPool pool, Tensor g, Tensor w, Scalar active, ffi::Result<Tensor> dx,
                         int32_t stride) {
  Problem p;
  ffi::Error error = describe(p, dx->dimensions(), w.dimensions(), g.dimensions(), active, stride);
  if (error.failure() || dx->element_count() == 0) return error;
  p.g = g.typed_data(), p.w = w.typed_data(), p.dx = dx->typed_data();
  cut_strips(p, p.in_h);
  return run(pool, p, tasks().input_gradient, p.batch * p.strips * p.bands, work_of(p));
}

ffi::Error WeightGradient(ffi::ThreadPool pool, Tensor x, Tensor g, Scalar active, ffi::Result<Tensor> dw,
                          int32_t stride) {
  static thread_local Scratch partials;
  Problem p;
  ffi::Error error = describe(p, x.dimensions(), dw->dimensions(), g.dimensions(), active, stride);
  if (error.failure() || dw->element_count() == 0) return error;
  p.x = x.typed_data(), p.g = g.typed_data(), p.dw = dw->typed_data();
  const int64_t size = p.kernel_h * p.kernel_w * p.channels;
  if (g.element_count() == 0) {
    std::memset(p.dw, 0, sizeof(float) * size);
    return error;
  }
  cut_strips(p, p.out_h);
  p.groups = std::min(p.batch, kGroups);
  p.partial = p.groups == 1 ? p.dw : partials.at_least(p.groups * size);
  error = run(pool, p, tasks().weight_gradient, p.groups * ceil_div(p.channels, kBlock), work_of(p));
  if (error.failure() || p.groups == 1) return error;
  std::memcpy(p.dw, p.partial, sizeof(float) * size);
  for (int64_t group = 1; group < p.groups; ++group) {
    const float* from = p.partial + group * size;
    for (int64_t i = 0; i < size; ++i) p.dw[i] += from[i];
  }
  return error;
}

}  // namespace

extern "C" const char* flynas_depthwise_isa() { return tasks().name; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Tensor>()
                                  .Arg<Tensor>()
                                  .Arg<Scalar>()
                                  .Ret<Tensor>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_input_gradient, InputGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Tensor>()
                                  .Arg<Tensor>()
                                  .Arg<Scalar>()
                                  .Ret<Tensor>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_weight_gradient, WeightGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Tensor>()
                                  .Arg<Tensor>()
                                  .Arg<Scalar>()
                                  .Ret<Tensor>()
                                  .Attr<int32_t>("stride"));
