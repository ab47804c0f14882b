// The arithmetic of batch normalisation and activation for one instruction set; depthwise_tasks.h includes it and says
// what NAMESPACE and TARGET are. The loops over channels are left to the compiler's vectoriser.

#pragma once

#include "normalise.h"

namespace flynas {
namespace NAMESPACE {

template <Activation A>
TARGET inline __attribute__((always_inline)) float activated(float z) {
  if (A == kRelu) return z > 0 ? z : 0;
  if (A == kRelu6) return z > 0 ? (z < 6 ? z : 6) : 0;
  if (A == kHardSwish) {
    const float t = z + 3;
    return z * ((t > 0 ? (t < 6 ? t : 6) : 0) * (1.0f / 6));
  }
  return z;
}

// `g` times the derivative of the activation at `z`.
template <Activation A>
TARGET inline __attribute__((always_inline)) float behind(float g, float z) {
  if (A == kRelu) return z > 0 ? g : 0;
  if (A == kRelu6) return z > 0 && z < 6 ? g : 0;
  if (A == kHardSwish) {
    const float t = z + 3;
    const float inside = t > 0 && t < 6 ? z : 0;
    return g * (((t > 0 ? (t < 6 ? t : 6) : 0) + inside) * (1.0f / 6));
  }
  return g;
}

// Sums of a chunk about its first row: those of squares alone lose all digits under a large mean.
TARGET inline void moments_of_rows(const Rows& p, int64_t chunk) {
  const int64_t from = chunk * p.chunk_rows, to = std::min(p.rows, from + p.chunk_rows), channels = p.channels;
  const float* __restrict first = p.x + from * channels;
  float* __restrict sum = p.partial + chunk * 2 * channels;
  float* __restrict square = sum + channels;
  for (int64_t c = 0; c < channels; ++c) sum[c] = square[c] = 0;
  for (int64_t row = from + 1; row < to; ++row) {
    const float* __restrict x = p.x + row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float d = x[c] - first[c];
      sum[c] += d;
      square[c] += d * d;
    }
  }
}

template <Activation A>
TARGET inline void normalise_as(const Rows& p, int64_t chunk) {
  const int64_t from = chunk * p.chunk_rows, to = std::min(p.rows, from + p.chunk_rows), channels = p.channels;
  const float* __restrict factor = p.factor;
  const float* __restrict shift = p.shift;
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict x = p.x + row * channels;
    float* __restrict y = p.y + row * channels;
    for (int64_t c = 0; c < p.active; ++c) y[c] = activated<A>(x[c] * factor[c] + shift[c]);
    for (int64_t c = p.active; c < channels; ++c) y[c] = 0;
  }
}

template <Activation A>
TARGET inline void sums_as(const Rows& p, int64_t chunk) {
  const int64_t from = chunk * p.chunk_rows, to = std::min(p.rows, from + p.chunk_rows), channels = p.channels;
  const float* __restrict factor = p.factor;
  const float* __restrict shift = p.shift;
  const float* __restrict mean = p.mean;
  float* __restrict sum = p.partial + chunk * 2 * channels;
  float* __restrict product = sum + channels;
  for (int64_t c = 0; c < channels; ++c) sum[c] = product[c] = 0;
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict x = p.x + row * channels;
    const float* __restrict g = p.g + row * channels;
    for (int64_t c = 0; c < p.active; ++c) {
      const float part = behind<A>(g[c], x[c] * factor[c] + shift[c]);
      sum[c] += part;
      product[c] += part * (x[c] - mean[c]);
    }
  }
}

template <Activation A>
TARGET inline void gradient_as(const Rows& p, int64_t chunk) {
  const int64_t from = chunk * p.chunk_rows, to = std::min(p.rows, from + p.chunk_rows), channels = p.channels;
  const float* __restrict factor = p.factor;
  const float* __restrict shift = p.shift;
  const float* __restrict mean = p.mean;
  const float* __restrict by_row = p.by_row;
  const float* __restrict by_value = p.by_value;
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict x = p.x + row * channels;
    const float* __restrict g = p.g + row * channels;
    float* __restrict dx = p.dx + row * channels;
    for (int64_t c = 0; c < p.active; ++c) {
      const float part = behind<A>(g[c], x[c] * factor[c] + shift[c]);
      dx[c] = factor[c] * part - by_row[c] - (x[c] - mean[c]) * by_value[c];
    }
    for (int64_t c = p.active; c < channels; ++c) dx[c] = 0;
  }
}

#define BY_ACTIVATION(FUNCTION)                             \
  switch (p.activation) {                                   \
    case kRelu: return FUNCTION<kRelu>(p, chunk);           \
    case kRelu6: return FUNCTION<kRelu6>(p, chunk);         \
    case kHardSwish: return FUNCTION<kHardSwish>(p, chunk); \
    default: return FUNCTION<kIdentity>(p, chunk);          \
  }

TARGET inline void normalise_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(normalise_as) }
TARGET inline void sums_of_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(sums_as) }
TARGET inline void gradient_of_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(gradient_as) }

#undef BY_ACTIVATION

}  // namespace NAMESPACE
}  // namespace flynas
