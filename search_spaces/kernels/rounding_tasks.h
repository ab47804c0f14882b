// The arithmetic of rounding for one instruction set; depthwise_tasks.h includes it and says what NAMESPACE and TARGET
// are.
//
// The operations are those of the quantizers in JAX as XLA compiles them, so that results are the same to the last bit:
// rounding half to even, -0 below 0, and what is not a number staying so. To divide many numbers by one, XLA multiplies
// them by its inverse.

#pragma once

#include "lanes.h"
#include "normalise_tasks.h"
#include "rounding.h"

namespace flynas {
namespace NAMESPACE {

template <int N>
struct Numbers {
  using L = Lanes<N>;
  using V = typename L::V;
  using I = typename L::I;

  static INLINE I bits(V v) {
    I i;
    std::memcpy(&i, &v, sizeof(V));
    return i;
  }
  static INLINE V number(I i) {
    V v;
    std::memcpy(&v, &i, sizeof(V));
    return v;
  }
  static INLINE V absolute(V v) { return number(bits(v) & 0x7fffffff); }
  // Half to even: adding 2^23 leaves no room for a fraction. Larger numbers have none.
  static INLINE V nearest(V v) {
    const V size = absolute(v), room = V{} + 8388608.0f, whole = (size + room) - room;
    return L::choose(size < room, number(bits(whole) | (bits(v) & static_cast<int32_t>(0x80000000u))), v);
  }
  // Where both are equal, they are the same bits, or zeros of which one may be negative.
  static INLINE V smaller(V a, V b) {
    return L::choose(a < b, a, L::choose(b < a, b, number(bits(a) | bits(b))));
  }
  static INLINE V larger(V a, V b) { return L::choose(a > b, a, L::choose(b > a, b, number(bits(a) & bits(b)))); }
  // 0 wins against -0 as the lower bound, as it does in JAX.
  static INLINE V between(V v, V low, V high) {
    v = L::choose(v <= low, low, v);
    return L::choose(v > high, high, v);
  }
};

template <class E>
struct ExtremesOf {
  const E* x;
  mutable float low, high;

  template <int N>
  INLINE void at(int64_t from, int64_t to) const {
    using M = Numbers<N>;
    typename M::V least = M::L::load(x + from), most = least;
    for (int64_t i = from + N; i < to; i += N) {
      const typename M::V v = M::L::load(x + i);
      least = M::smaller(least, v), most = M::larger(most, v);
    }
    float lows[N], highs[N];
    M::L::store(lows, least), M::L::store(highs, most);
    for (int lane = 0; lane < N; ++lane)
      low = Numbers<1>::smaller(low, lows[lane]), high = Numbers<1>::larger(high, highs[lane]);
  }
};

template <class E>
TARGET void extremes_of_piece(const Activations<E>& p, int64_t task) {
  const int64_t problem = task / p.pieces, piece = task % p.pieces, from = p.first(piece), to = p.end(piece);
  const E* x = p.x + problem * p.count;
  const float start = Lanes<1>::load(x + from);
  const ExtremesOf<E> part{x, start, start};
  const int64_t many = from + (to - from) / WIDEST * WIDEST;
  if (many > from) part.template at<WIDEST>(from, many);
  if (to > many) part.template at<1>(many, to);
  p.lows[task] = part.low, p.highs[task] = part.high;
}

template <class E>
struct RoundedOf {
  const E* x;
  E* y;
  Levels levels;

  template <int N>
  INLINE void at(int64_t i) const {
    using M = Numbers<N>;
    using V = typename M::V;
    const V zero{}, step = zero + levels.step, zero_point = zero + levels.zero_point;
    const V code = M::nearest(M::L::load(x + i) * levels.inverse) + zero_point;
    M::L::store(y + i, step * (M::between(code, zero, zero + levels.last) - zero_point));
  }
};

template <class E>
TARGET void round_piece(const Activations<E>& p, int64_t task) {
  const int64_t problem = task / p.pieces, piece = task % p.pieces, at = problem * p.count;
  const int64_t from = p.first(piece), to = p.end(piece);
  if (p.levels[problem].exact) {
    std::memcpy(p.y + at + from, p.x + at + from, (to - from) * sizeof(E));
    return;
  }
  over_channels(RoundedOf<E>{p.x + at, p.y + at, p.levels[problem]}, from, to);
}

struct ReachOfRow {
  const float* w;
  float* reach;

  template <int N>
  INLINE void at(int64_t c) const {
    using M = Numbers<N>;
    const typename M::V v = M::absolute(M::L::load(w + c)), most = M::L::load(reach + c);
    // what is not a number stays so, whichever of both it is
    M::L::store(reach + c, M::L::choose((most >= v) | (most != most), most, v));
  }
};

struct StepOfColumn {
  float *step, *inverse;  // `step` has the largest absolute value
  float inverse_last;

  template <int N>
  INLINE void at(int64_t c) const {
    using M = Numbers<N>;
    using V = typename M::V;
    const V least = V{} + kLeastStep, some = M::L::load(step + c) * inverse_last;
    const V by = M::L::choose(some < least, least, some);
    M::L::store(step + c, by);
    M::L::store(inverse + c, 1.0f / by);
  }
};

struct RoundedRow {
  const float *w, *step, *inverse;
  float* y;
  float last;

  template <int N>
  INLINE void at(int64_t c) const {
    using M = Numbers<N>;
    using V = typename M::V;
    const V code = M::nearest(M::L::load(w + c) * M::L::load(inverse + c));
    M::L::store(y + c, M::L::load(step + c) * M::between(code, V{} - last, V{} + last));
  }
};

TARGET inline void round_weights(const Weights& p, int64_t task) {
  static thread_local std::vector<float> room;
  const Weights::Part& part = p.parts[task / p.blocks];
  const int64_t from = task % p.blocks * p.block, to = std::min(p.columns, from + p.block);
  const int64_t problem = task / p.blocks * p.rows * p.columns;
  const float* w = p.w + problem;
  float* y = p.y + problem;
  if (part.exact || !part.whole)
    for (int64_t row = 0; row < p.rows; ++row)
      std::memcpy(y + row * p.columns + from, w + row * p.columns + from, (to - from) * sizeof(float));
  if (part.exact) return;
  const int64_t count = to - from;
  room.assign(2 * count, 0.0f);
  float *steps = room.data(), *inverses = steps + count;  // of the columns from `from` on
  for (const int64_t row : part.rows)
    for (const Columns& each : part.columns)
      over_channels(ReachOfRow{w + row + from, steps}, std::max(from, each.begin) - from,
                    std::min(to, each.end) - from);
  if (p.together || p.columns == 1) {
    float reach = 0;
    for (int64_t c = 0; c < count; ++c) reach = reach >= steps[c] || reach != reach ? reach : steps[c];
    const float some = reach / part.last, step = some < kLeastStep ? kLeastStep : some;
    std::fill(steps, inverses, step);
    std::fill(inverses, inverses + count, 1 / step);
  } else {
    over_channels(StepOfColumn{steps, inverses, 1 / part.last}, 0, count);
  }
  for (const int64_t row : part.rows)
    for (const Columns& each : part.columns)
      over_channels(RoundedRow{w + row + from, steps, inverses, y + row + from, part.last},
                    std::max(from, each.begin) - from, std::min(to, each.end) - from);
}

}  // namespace NAMESPACE
}  // namespace flynas
