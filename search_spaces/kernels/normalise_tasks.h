// The arithmetic of batch normalisation and activation for one instruction set; depthwise_tasks.h includes it and says
// what NAMESPACE and TARGET are.
//
// Rows are read in their order, whole registers of channels at a time. The compiler's own vectoriser leaves the choices
// of an activation to branches, one number at a time, and is then eight times slower.

#pragma once

#include "lanes.h"
#include "normalise.h"

namespace flynas {
namespace NAMESPACE {

// Calls `part.at<N>(channel)` for channels `[from, to)`, with the widest registers that fit.
template <class Part>
INLINE void over_channels(const Part& part, int64_t from, int64_t to) {
#if WIDEST >= 16
  for (; from + 16 <= to; from += 16) part.template at<16>(from);
#endif
#if WIDEST >= 8
  for (; from + 8 <= to; from += 8) part.template at<8>(from);
#endif
  for (; from + 4 <= to; from += 4) part.template at<4>(from);
  for (; from < to; ++from) part.template at<1>(from);
}

// What is not a number stays so, here and below: a diverged training must not look like a dead channel.
template <class L>
INLINE typename L::V clipped(typename L::V v, typename L::V low, typename L::V high) {
  v = L::choose(v < low, low, v);
  return L::choose(v > high, high, v);
}

template <class L, Activation A>
INLINE typename L::V activated(typename L::V z) {
  using V = typename L::V;
  const V zero{}, six = zero + 6.0f;
  if (A == kRelu) return L::choose(z < zero, zero, z);
  if (A == kRelu6) return clipped<L>(z, zero, six);
  if (A == kHardSwish) return z * (clipped<L>(z + 3.0f, zero, six) * (1.0f / 6));
  return z;
}

// `g` times the derivative of the activation at `z`.
template <class L, Activation A>
INLINE typename L::V behind(typename L::V g, typename L::V z) {
  using V = typename L::V;
  const V zero{}, six = zero + 6.0f;
  if (A == kRelu) return L::choose(z > zero, g, zero);
  if (A == kRelu6) return L::choose(z > zero, L::choose(z < six, g, zero), zero);
  if (A == kHardSwish) {
    const V t = z + 3.0f;
    const V inside = L::choose(t > zero, L::choose(t < six, z, zero), zero);
    return g * ((clipped<L>(t, zero, six) + inside) * (1.0f / 6));
  }
  return g;
}

// Rows that sums are kept in registers for; a chunk of rows is whole groups of them, but the last.
constexpr int kTogether = 4;

template <int ROWS>
struct MomentsOfRows {
  const float *x, *first;
  float *sum, *square;
  int64_t channels;

  template <int N>
  INLINE void at(int64_t c) const {
    using L = Lanes<N>;
    const typename L::V about = L::load(first + c);
    typename L::V s = L::load(sum + c), q = L::load(square + c);
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      const typename L::V d = L::load(x + row * channels + c) - about;
      s += d;
      q += d * d;
    }
    L::store(sum + c, s);
    L::store(square + c, q);
  }
};

template <int ROWS, Activation A, bool SHARED>
struct SumsOfRows {
  const float *x, *g, *factor, *shift, *mean, *share;
  float *sum, *product, *of_share;
  int64_t channels;

  template <int N>
  INLINE void at(int64_t c) const {
    using L = Lanes<N>;
    using V = typename L::V;
    const V f = L::load(factor + c), b = L::load(shift + c), m = L::load(mean + c);
    V s = L::load(sum + c), q = L::load(product + c), share_of_all{}, t{};
    if (SHARED) share_of_all = L::load(share + c), t = L::load(of_share + c);
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      const V v = L::load(x + row * channels + c), z = v * f + b;
      V by = L::load(g + row * channels + c);
      if (SHARED) t += by * activated<L, A>(z), by *= share_of_all;
      const V part = behind<L, A>(by, z);
      s += part;
      q += part * (v - m);
    }
    L::store(sum + c, s);
    L::store(product + c, q);
    if (SHARED) L::store(of_share + c, t);
  }
};

template <Activation A, bool SHARED>
struct NormalisedRow {
  const float *x, *factor, *shift, *share;
  float* y;

  template <int N>
  INLINE void at(int64_t c) const {
    using L = Lanes<N>;
    const typename L::V v = activated<L, A>(L::load(x + c) * L::load(factor + c) + L::load(shift + c));
    L::store(y + c, SHARED ? v * L::load(share + c) : v);
  }
};

template <Activation A, bool SHARED>
struct GradientOfRow {
  const float *x, *g, *factor, *shift, *mean, *by_row, *by_value, *share;
  float* dx;

  template <int N>
  INLINE void at(int64_t c) const {
    using L = Lanes<N>;
    using V = typename L::V;
    const V v = L::load(x + c), f = L::load(factor + c);
    const V by = SHARED ? L::load(g + c) * L::load(share + c) : L::load(g + c);
    const V part = behind<L, A>(by, v * f + L::load(shift + c));
    L::store(dx + c, f * part - L::load(by_row + c) - (v - L::load(mean + c)) * L::load(by_value + c));
  }
};

// Sums of a chunk about its first row: those of squares alone lose all digits under a large mean.
TARGET inline void moments_of_rows(const Rows& p, int64_t chunk) {
  const int64_t from = p.first_row(chunk), to = p.end_row(chunk), channels = p.channels;
  const float* first = p.x + from * channels;
  float* sum = p.partial + chunk * 3 * channels;
  float* square = sum + channels;
  std::memset(sum, 0, 2 * channels * sizeof(float));
  int64_t row = from;
  for (; row + kTogether <= to; row += kTogether)
    over_channels(MomentsOfRows<kTogether>{p.x + row * channels, first, sum, square, channels}, 0, channels);
  for (; row < to; ++row)
    over_channels(MomentsOfRows<1>{p.x + row * channels, first, sum, square, channels}, 0, channels);
}

template <Activation A, bool SHARED>
TARGET inline void normalise_as(const Rows& p, int64_t chunk) {
  for (int64_t row = p.first_row(chunk); row < p.end_row(chunk); ++row) {
    const int64_t at = row * p.channels;
    over_channels(NormalisedRow<A, SHARED>{p.x + at, p.factor, p.shift, p.share, p.y + at}, 0, p.active);
    std::memset(p.y + at + p.active, 0, (p.channels - p.active) * sizeof(float));
  }
}

template <Activation A, bool SHARED>
TARGET inline void sums_as(const Rows& p, int64_t chunk) {
  const int64_t to = p.end_row(chunk), channels = p.channels;
  float* sum = p.partial + chunk * 3 * channels;
  float *product = sum + channels, *of_share = product + channels;
  std::memset(sum, 0, 3 * channels * sizeof(float));
  int64_t row = p.first_row(chunk);
  for (; row + kTogether <= to; row += kTogether)
    over_channels(SumsOfRows<kTogether, A, SHARED>{p.x + row * channels, p.g + row * channels, p.factor, p.shift,
                                                   p.mean, p.share, sum, product, of_share, channels}, 0, p.active);
  for (; row < to; ++row)
    over_channels(SumsOfRows<1, A, SHARED>{p.x + row * channels, p.g + row * channels, p.factor, p.shift, p.mean,
                                           p.share, sum, product, of_share, channels}, 0, p.active);
}

template <Activation A, bool SHARED>
TARGET inline void gradient_as(const Rows& p, int64_t chunk) {
  for (int64_t row = p.first_row(chunk); row < p.end_row(chunk); ++row) {
    const int64_t at = row * p.channels;
    over_channels(GradientOfRow<A, SHARED>{p.x + at, p.g + at, p.factor, p.shift, p.mean, p.by_row, p.by_value, p.share,
                                           p.dx + at}, 0, p.active);
    std::memset(p.dx + at + p.active, 0, (p.channels - p.active) * sizeof(float));
  }
}

// Adds a chunk to mean and sum of squared differences of the `count` rows before it (Chan, Golub & LeVeque 1979).
TARGET inline void join_moments(const Rows& p, int64_t chunk, double count, double* mean, double* squares) {
  const int64_t channels = p.channels;
  const float* first = p.x + p.first_row(chunk) * channels;
  const float* sum = p.partial + chunk * 3 * channels;
  const float* square = sum + channels;
  const double n = static_cast<double>(p.end_row(chunk) - p.first_row(chunk));
  const double each = 1 / n, share = n / (count + n), cross = count * share;
  for (int64_t c = 0; c < channels; ++c) {
    const double s = sum[c], away = s * each, step = first[c] + away - mean[c];
    squares[c] += square[c] - s * away + step * step * cross;
    mean[c] += step * share;
  }
}

TARGET inline void join_sums(const Rows& p, int64_t chunk, double* sums) {
  const float* partial = p.partial + chunk * 3 * p.channels;
  for (int64_t c = 0; c < 3 * p.channels; ++c) sums[c] += partial[c];
}

#define BY_SHARE(FUNCTION, A) return p.share == nullptr ? FUNCTION<A, false>(p, chunk) : FUNCTION<A, true>(p, chunk)
#define BY_ACTIVATION(FUNCTION)                  \
  switch (p.activation) {                        \
    case kRelu: BY_SHARE(FUNCTION, kRelu);       \
    case kRelu6: BY_SHARE(FUNCTION, kRelu6);     \
    case kHardSwish: BY_SHARE(FUNCTION, kHardSwish); \
    default: BY_SHARE(FUNCTION, kIdentity);      \
  }

TARGET inline void normalise_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(normalise_as) }
TARGET inline void sums_of_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(sums_as) }
TARGET inline void gradient_of_rows(const Rows& p, int64_t chunk) { BY_ACTIVATION(gradient_as) }

#undef BY_ACTIVATION
#undef BY_SHARE

}  // namespace NAMESPACE
}  // namespace flynas
