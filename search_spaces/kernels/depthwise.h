// What the parts of the compiled kernel share: sizes, the description of one problem, and the table of tasks that each
// instruction set fills in (depthwise_<set>.cc, by depthwise_tasks.h) and depthwise.cc chooses from.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "attention.h"
#include "normalise.h"
#include "rounding.h"

namespace flynas {

constexpr int64_t kBand = 256;              // channels of one task
constexpr int64_t kNarrow = 64;             // the same where there would be too few tasks for the threads
constexpr int64_t kBlock = 16;              // channels of one task of the weights' gradient
constexpr int64_t kStripBytes = 512 * 1024; // what a task reads stays in the second-level cache
constexpr int64_t kGroups = 16;             // sample groups of the weights' gradient

struct bf16 {
  uint16_t bits;
};

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

template <class E>
struct Problem {
  int64_t batch, in_h, in_w, channels, out_h, out_w, stride;
  int64_t all_heads, full_kernel;  // as stored
  int64_t heads, kernel, active;   // in use
  int64_t pad_h, pad_w;            // zero rows above, zero columns on the left
  const E* x;                      // [batch, in_h, in_w, channels]
  const E* w;                      // [all_heads, full_kernel, full_kernel, channels]
  const E* g;                      // gradient of y
  const uint8_t* index;            // shape of y: the head that was the largest; null: there is one head
  const float* scale;              // [batch, all_heads, channels], or null
  E* y;                            // [batch, out_h, out_w, channels]
  uint8_t* index_out;              // shape of y, or null
  E* dx;                           // shape of x
  float* partial;                  // [groups, shape of w]
  float* mean;                     // [batch, all_heads, channels], also variance and dscale
  float* variance;
  float* dscale;
  int64_t groups, strip_rows, strips, band, bands;

  // Channels of the task from `first` on: how many are active, how many there are.
  int64_t active_from(int64_t first) const { return std::max<int64_t>(0, std::min(band, active - first)); }
  int64_t channels_from(int64_t first) const { return std::min(band, channels - first); }

  // Room in floats for the weights of `count` channels, 0 where they are used in place.
  int64_t packed_floats(int64_t count) const {
    const bool in_place = sizeof(E) == sizeof(float) && scale == nullptr;
    return in_place ? 0 : (heads * full_kernel * full_kernel * count + 15) / 16 * 16;
  }
  // Room in floats for the output's gradient as each head sees it.
  int64_t masked_floats(int64_t count, int64_t rows) const {
    return index == nullptr ? 0 : (heads * rows * out_w * count * static_cast<int64_t>(sizeof(E)) + 3) / 4;
  }
  float* room(int64_t floats) const {
    static thread_local Scratch scratch;
    return scratch.at_least(floats);
  }
};

// The images whose products are summed for the gradient of the weights; `x` is at the first tap of output (0, 0).
template <class E>
struct Sums {
  const E* x;
  int64_t x_row, x_col;
  const E* g;
  const uint8_t* index;  // in the strides of `g`: only pixels of this head count; null: all do
  int32_t head;
  const float* scale;  // of the sums, one per channel, or null
  int64_t g_row, g_col;
  int64_t first_row, first_col;  // the row and column of `x`, perhaps negative
  int64_t in_h, in_w, out_h, out_w, kernel, stride, strip_rows;
};

template <class E>
struct Tasks {
  void (*forward)(const Problem<E>&, int64_t);
  void (*input_gradient)(const Problem<E>&, int64_t);
  void (*weight_gradient)(const Problem<E>&, int64_t);
  void (*moments)(const Problem<E>&, int64_t);
  void (*scale_gradient)(const Problem<E>&, int64_t);
};

// The same for both types of numbers, and what normalise.h, attention.h and rounding.h describe.
struct Set {
  const char* name;
  Tasks<float> of_float32;
  Tasks<bf16> of_bfloat16;
  NormaliseTasks normalise;
  AttentionTasks attention;
  RoundingTasks rounding;
};

// The best instruction set of this machine, chosen when the library is first used.
const Set& chosen_set();

extern const Set kBaseline;
#if defined(__x86_64__)
extern const Set kAvx2;
extern const Set kAvx512;
#endif

}  // namespace flynas
