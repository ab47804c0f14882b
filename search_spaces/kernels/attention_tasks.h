// The arithmetic of attention for one instruction set; depthwise_tasks.h includes it and says what NAMESPACE and TARGET
// are. Loops over channels have no branches and are left to the compiler's vectoriser.

#pragma once

#include <cmath>

#include "attention.h"
#include "depthwise.h"
#include "lanes.h"

namespace flynas {
namespace NAMESPACE {

constexpr int64_t kPixelsTogether = 128;  // float32 sums of more of them would lose digits

// What is not a number stays so.
INLINE float applied(Function f, float z) {
  const auto gate = [](float t) TARGET { return (t < 0 ? 0 : t > 6 ? 6 : t) / 6; };
  switch (f) {
    case kFRelu: return z < 0 ? 0 : z;
    case kFRelu6: return 6 * gate(z);
    case kFHardSwish: return z * gate(z + 3);
    case kFHardSigmoid: return gate(z + 3);
    case kFSigmoid: return 1 / (1 + std::exp(-z));
    case kFSilu: return z / (1 + std::exp(-z));
    default: return z;
  }
}

// The derivative of `applied`.
INLINE float slope(Function f, float z) {
  switch (f) {
    case kFRelu: return z > 0 ? 1 : 0;
    case kFRelu6: return z > 0 && z < 6 ? 1 : 0;
    case kFHardSwish: return z <= -3 ? 0 : z >= 3 ? 1 : (2 * z + 3) / 6;
    case kFHardSigmoid: return z > -3 && z < 3 ? 1.0f / 6 : 0;
    case kFSigmoid: {
      const float s = 1 / (1 + std::exp(-z));
      return s * (1 - s);
    }
    case kFSilu: {
      const float s = 1 / (1 + std::exp(-z));
      return s * (1 + z * (1 - s));
    }
    default: return 1;
  }
}

// to += factor * from
INLINE void add_scaled(float* __restrict to, const float* __restrict from, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

INLINE float dot(const float* a, const float* b, int64_t count) {
  constexpr int N = WIDEST;
  using L = Lanes<N>;
  typename L::V sum{};
  int64_t i = 0;
  for (; i + N <= count; i += N) sum += L::load(a + i) * L::load(b + i);
  float total = 0, parts[N];
  L::store(parts, sum);
  for (int lane = 0; lane < N; ++lane) total += parts[lane];
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

// The sum of what `add(sum, pixel)` adds for every pixel of a sample, a vector of channels: groups of pixels in float32,
// which are joined in float64.
template <class Add>
INLINE void over_pixels(int64_t pixels, int64_t channels, float* group, double* total, const Add& add) {
  for (int64_t c = 0; c < channels; ++c) total[c] = 0;
  for (int64_t from = 0; from < pixels; from += kPixelsTogether) {
    const int64_t to = std::min(pixels, from + kPixelsTogether);
    for (int64_t c = 0; c < channels; ++c) group[c] = 0;
    for (int64_t pixel = from; pixel < to; ++pixel) add(group, pixel);
    for (int64_t c = 0; c < channels; ++c) total[c] += group[c];
  }
}

// Room for float32 and float64 vectors of a task, which lives as long as its thread.
struct Vectors {
  float* next;
  explicit Vectors(int64_t floats) {
    static thread_local Scratch scratch;
    next = scratch.at_least(floats);
  }
  float* take(int64_t count) {
    float* here = next;
    next += (count + 15) / 16 * 16;
    return here;
  }
  double* take_doubles(int64_t count) { return reinterpret_cast<double*>(take(2 * count)); }
};

// What the filter sees of a vector: zeros around it.
INLINE void padded(float* to, const float* from, int64_t count, int64_t around) {
  for (int64_t i = 0; i < around; ++i) to[i] = to[around + count + i] = 0;
  std::memcpy(to + around, from, count * sizeof(float));
}

// Adds the convolution of a padded vector with `filter`, `step` apart; `backwards` with its mirror image.
INLINE void convolve(float* __restrict to, const float* __restrict from, const float* filter, int64_t step,
                     int64_t taps, int64_t count, bool backwards) {
  for (int64_t tap = 0; tap < taps; ++tap)
    add_scaled(to, from + tap, filter[(backwards ? taps - 1 - tap : tap) * step], count);
}

// The bottleneck of a sample before and behind its function; what is not in use is zero.
INLINE void squeeze(const ChannelMaps& p, const float* mean, float* before, float* hidden) {
  std::memcpy(before, p.reduce_bias, p.reduced * sizeof(float));
  for (int64_t c = 0; c < p.channels; ++c) add_scaled(before, p.reduce + c * p.reduced, mean[c], p.reduced);
  for (int64_t r = 0; r < p.reduced; ++r) hidden[r] = r < p.in_use ? applied(p.inner, before[r]) : 0;
}

// The responses of a sample before the last function.
INLINE void excite(const ChannelMaps& p, const float* hidden, float* before) {
  std::memcpy(before, p.expand_bias, p.channels * sizeof(float));
  for (int64_t r = 0; r < p.in_use; ++r) add_scaled(before, p.expand + r * p.channels, hidden[r], p.channels);
}

TARGET inline void attention_factors(const ChannelMaps& p, int64_t n) {
  const int64_t channels = p.channels, around = p.taps / 2;
  Vectors room(6 * (channels + 16) + 2 * (p.reduced + 16) + 2 * (around + 16));
  float *group = room.take(channels), *mean = p.mean + n * channels, *factors = p.factors + n * channels;
  double* total = room.take_doubles(channels);
  const float* x = p.x + n * p.pixels * channels;
  if (p.kind == kNoAttention) {
    for (int64_t c = 0; c < channels; ++c) mean[c] = 0, factors[c] = 1;  // nobody asks for the mean
    return;
  }
  over_pixels(p.pixels, channels, group, total, [&](float* __restrict to, int64_t pixel) TARGET {
    const float* __restrict row = x + pixel * channels;
    for (int64_t c = 0; c < channels; ++c) to[c] += row[c];
  });
  for (int64_t c = 0; c < channels; ++c) mean[c] = static_cast<float>(total[c] / static_cast<double>(p.pixels));
  if (p.kind == kSqueezeExcite) {
    float *before = room.take(p.reduced), *hidden = room.take(p.reduced);
    squeeze(p, mean, before, hidden);
    excite(p, hidden, factors);
    for (int64_t c = 0; c < channels; ++c) factors[c] = applied(p.gate, factors[c]);
  } else {
    float* wide = room.take(channels + 2 * around);
    padded(wide, mean, channels, around);
    for (int64_t c = 0; c < channels; ++c) factors[c] = 0;
    convolve(factors, wide, p.filter, 1, p.taps, channels, false);
    for (int64_t c = 0; c < channels; ++c) factors[c] = applied(kFSigmoid, factors[c]);
  }
}

TARGET inline void attention_scale(const ChannelMaps& p, int64_t n) {
  const int64_t channels = p.channels;
  const float* __restrict factors = p.factors + n * channels;
  for (int64_t pixel = n * p.pixels; pixel < (n + 1) * p.pixels; ++pixel) {
    const float* __restrict x = p.x + pixel * channels;
    float* __restrict y = p.y + pixel * channels;
    for (int64_t c = 0; c < channels; ++c) y[c] = x[c] * factors[c];
  }
}

TARGET inline void attention_gradient(const ChannelMaps& p, int64_t n) {
  const int64_t channels = p.channels, around = p.taps / 2;
  Vectors room(8 * (channels + 16) + 3 * (p.reduced + 16) + 2 * (around + 16));
  float *group = room.take(channels), *by_mean = room.take(channels), *by_gate = p.by_gate + n * channels;
  double* total = room.take_doubles(channels);
  const float *mean = p.mean + n * channels, *factors = p.factors + n * channels;
  const float *x = p.x + n * p.pixels * channels, *g = p.g + n * p.pixels * channels;
  for (int64_t c = 0; c < channels; ++c) by_mean[c] = 0;
  if (p.kind != kNoAttention) {
    over_pixels(p.pixels, channels, group, total, [&](float* __restrict to, int64_t pixel) TARGET {
      const float *__restrict row = x + pixel * channels, *__restrict by = g + pixel * channels;
      for (int64_t c = 0; c < channels; ++c) to[c] += row[c] * by[c];
    });
  }
  if (p.kind == kSqueezeExcite) {
    float *before = room.take(p.reduced), *hidden = p.hidden + n * p.reduced, *by_hidden = p.by_hidden + n * p.reduced;
    squeeze(p, mean, before, hidden);
    excite(p, hidden, by_gate);
    for (int64_t c = 0; c < channels; ++c) by_gate[c] = static_cast<float>(total[c]) * slope(p.gate, by_gate[c]);
    for (int64_t r = 0; r < p.reduced; ++r)
      by_hidden[r] = r < p.in_use ? dot(by_gate, p.expand + r * channels, channels) * slope(p.inner, before[r]) : 0;
    for (int64_t c = 0; c < channels; ++c) by_mean[c] = dot(by_hidden, p.reduce + c * p.reduced, p.reduced);
  } else if (p.kind == kEfficient) {
    for (int64_t c = 0; c < channels; ++c) by_gate[c] = static_cast<float>(total[c]) * factors[c] * (1 - factors[c]);
    float* wide = room.take(channels + 2 * around);
    padded(wide, by_gate, channels, around);
    convolve(by_mean, wide, p.filter, 1, p.taps, channels, true);
  }
  const float each = 1.0f / static_cast<float>(p.pixels);
  for (int64_t c = 0; c < channels; ++c) by_mean[c] *= each;
  for (int64_t pixel = 0; pixel < p.pixels; ++pixel) {
    const float* __restrict by = g + pixel * channels;
    float* __restrict dx = p.dx + (n * p.pixels + pixel) * channels;
    for (int64_t c = 0; c < channels; ++c) dx[c] = by[c] * factors[c] + by_mean[c];
  }
}

TARGET inline void attention_weights(const ChannelMaps& p, int64_t row) {
  if (row < p.channels) {
    float* to = p.dreduce + row * p.reduced;
    std::memset(to, 0, p.reduced * sizeof(float));
    for (int64_t n = 0; n < p.batch; ++n)
      add_scaled(to, p.by_hidden + n * p.reduced, p.mean[n * p.channels + row], p.reduced);
    return;
  }
  row -= p.channels;
  float* to = p.dexpand + row * p.channels;
  std::memset(to, 0, p.channels * sizeof(float));
  for (int64_t n = 0; n < p.batch; ++n)
    add_scaled(to, p.by_gate + n * p.channels, p.hidden[n * p.reduced + row], p.channels);
}

// `[heads, channels]` as one vector in the order `channel * heads + head`, or back from it.
INLINE void interleave(const HeadMaps& p, float* joined, const float* by_head) {
  for (int64_t h = 0; h < p.in_use; ++h)
    for (int64_t c = 0; c < p.channels; ++c) joined[c * p.in_use + h] = by_head[h * p.channels + c];
}
INLINE void deinterleave(const HeadMaps& p, float* by_head, const float* joined) {
  for (int64_t h = 0; h < p.in_use; ++h)
    for (int64_t c = 0; c < p.channels; ++c) by_head[h * p.channels + c] = joined[c * p.in_use + h];
  std::memset(by_head + p.in_use * p.channels, 0, (p.heads - p.in_use) * p.channels * sizeof(float));
}

// What the filter sees of means or variances of a sample.
INLINE void seen(const HeadMaps& p, float* wide, const float* by_head, int64_t n) {
  const int64_t around = p.taps / 2, count = p.channels * p.in_use;
  for (int64_t i = 0; i < around; ++i) wide[i] = wide[around + count + i] = 0;
  interleave(p, wide + around, by_head + n * p.heads * p.channels);
}

TARGET inline void head_factors(const HeadMaps& p, int64_t n) {
  const int64_t count = p.channels * p.in_use, step = p.of_both() ? 2 : 1;
  Vectors room(2 * (count + p.taps + 32));
  float *wide = room.take(count + p.taps), *response = room.take(count);
  for (int64_t i = 0; i < count; ++i) response[i] = 0;
  seen(p, wide, p.mean, n);
  convolve(response, wide, p.filter, step, p.taps, count, false);
  if (p.of_both()) {
    seen(p, wide, p.variance, n);
    convolve(response, wide, p.filter + 1, step, p.taps, count, false);
  }
  if (p.softmax()) {
    for (int64_t c = 0; c < p.channels; ++c) {
      float* of = response + c * p.in_use;
      float top = of[0], sum = 0;
      for (int64_t h = 1; h < p.in_use; ++h) top = of[h] > top || of[h] != of[h] ? of[h] : top;
      for (int64_t h = 0; h < p.in_use; ++h) sum += of[h] = std::exp((of[h] - top) / p.temperature);
      for (int64_t h = 0; h < p.in_use; ++h) of[h] /= sum;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) response[i] = applied(kFSigmoid, response[i]);
  }
  deinterleave(p, p.factors + n * p.heads * p.channels, response);
}

TARGET inline void head_gradient(const HeadMaps& p, int64_t n) {
  const int64_t count = p.channels * p.in_use, step = p.of_both() ? 2 : 1, around = p.taps / 2;
  const int64_t at = n * p.heads * p.channels;
  Vectors room(5 * (count + p.taps + 32));
  float *by = room.take(count), *factors = room.take(count), *wide = room.take(count + p.taps);
  float *back = room.take(count), *by_wide = room.take(count + p.taps);
  interleave(p, by, p.g + at);
  interleave(p, factors, p.factors + at);
  if (p.softmax()) {
    for (int64_t c = 0; c < p.channels; ++c) {
      float *of = by + c * p.in_use, *shares = factors + c * p.in_use, mean = 0;
      for (int64_t h = 0; h < p.in_use; ++h) mean += of[h] * shares[h];
      for (int64_t h = 0; h < p.in_use; ++h) of[h] = shares[h] * (of[h] - mean) / p.temperature;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) by[i] *= factors[i] * (1 - factors[i]);
  }
  padded(by_wide, by, count, around);
  for (int64_t part = 0; part < step; ++part) {
    seen(p, wide, part ? p.variance : p.mean, n);
    for (int64_t tap = 0; tap < p.taps; ++tap) p.partial[(n * p.taps + tap) * 2 + part] = dot(by, wide + tap, count);
    for (int64_t i = 0; i < count; ++i) back[i] = 0;
    convolve(back, by_wide, p.filter + part, step, p.taps, count, true);
    deinterleave(p, (part ? p.dvariance : p.dmean) + at, back);
  }
}

}  // namespace NAMESPACE
}  // namespace flynas
