// Rounding to integers of equal steps ("fake quantization"), for XLA's CPU backend: activations over their range, and
// weights by the largest absolute value of each channel, or of all, in the part of them that is in use.
//
// The numbers are those of search_spaces/quantizers/affine.py and symmetric.py as XLA compiles them, to the last bit.
// XLA compiles some fifty operations for every layer of every branch of a supernet, and again for the gradient, where
// here is one call. The first axes of all operands are those of the bits: problems that `jax.vmap` joined.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "depthwise.h"
#include "pool.h"
#include "rounding.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {
namespace {

using Any = ffi::AnyBuffer;
using Floats = ffi::Buffer<ffi::F32>;

constexpr float kLeastBits = 2, kMostBits = 16, kExactBits = 32;  // `BITS` and `EXACT_BITS` of the quantizers

// 2 to the power of `bits`, within what the quantizers know, and of one less where codes are signed.
float power(float bits, int less) {
  const float inside = bits >= kLeastBits ? std::min(bits, kMostBits) : kLeastBits;  // the least if not a number
  return std::ldexp(1.0f, static_cast<int>(inside) - less);
}

// Unsigned codes over `low` to `high`, 0 included.
Levels affine(float low, float high, float bits) {
  const float last = power(bits, 0) - 1;
  low = low > 0 ? 0 : low, high = high < 0 ? 0 : high;
  const float range = (high - low) / last, step = range < kLeastStep ? kLeastStep : range;
  const float zero_point = std::nearbyint(-low / step);
  return {bits >= kExactBits, step, 1 / step, zero_point <= 0 ? 0 : zero_point > last ? last : zero_point, last};
}

const ActivationTasks<float>& tasks_of(float) { return chosen_set().rounding.of_float32; }
const ActivationTasks<bf16>& tasks_of(bf16) { return chosen_set().rounding.of_bfloat16; }

// About so many operations as the pool's threads are worth waking for.
constexpr int64_t kWork = 4;

template <class E>
Activations<E> describe(const Any& x, int64_t problems) {
  Activations<E> p{};
  p.x = static_cast<const E*>(x.untyped_data());
  p.count = problems == 0 ? 0 : static_cast<int64_t>(x.element_count()) / problems;
  p.pieces = ceil_div(p.count, kNumbers);
  return p;
}

// XLA takes numbers below the smallest normal one for zeros.
float normal(float v) { return std::abs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v; }

template <class E>
ffi::Error extremes(ffi::ThreadPool& pool, const Any& x, Floats& low, Floats& high) {
  const int64_t problems = static_cast<int64_t>(low.element_count());
  Activations<E> p = describe<E>(x, problems);
  std::vector<float> lows(problems * p.pieces), highs(problems * p.pieces);
  p.lows = lows.data(), p.highs = highs.data();
  const int64_t tasks = problems * p.pieces;
  ffi::Error error = run(pool, p, tasks_of(E{}).extremes, tasks, kWork * problems * p.count);
  if (error.failure()) return error;
  for (int64_t problem = 0; problem < problems; ++problem) {
    float least = std::numeric_limits<float>::infinity(), most = -least;
    for (int64_t task = problem * p.pieces; task < (problem + 1) * p.pieces; ++task) {
      const float a = lows[task], b = highs[task];
      least = least != least || a != a ? std::nanf("") : a < least || (a == least && std::signbit(a)) ? a : least;
      most = b > most || (b == most && !std::signbit(b)) ? b : most;
    }
    // neither of nothing nor of what is not a number is there a range
    const bool some = most >= least;
    low.typed_data()[problem] = some ? normal(least) : 0;
    high.typed_data()[problem] = some ? normal(most) : 0;
  }
  return error;
}

template <class E>
ffi::Error activations(ffi::ThreadPool& pool, const Any& x, const Floats& bits, const Floats& low, const Floats& high,
                       Any& y) {
  const int64_t problems = static_cast<int64_t>(bits.element_count());
  if (static_cast<int64_t>(low.element_count()) != problems || high.element_count() != low.element_count())
    return wrong("rounding: shapes do not fit");
  Activations<E> p = describe<E>(x, problems);
  p.y = static_cast<E*>(y.untyped_data());
  for (int64_t problem = 0; problem < problems; ++problem)
    p.levels.push_back(affine(low.typed_data()[problem], high.typed_data()[problem], bits.typed_data()[problem]));
  return run(pool, p, tasks_of(E{}).round, problems * p.pieces, kWork * problems * p.count);
}

// One axis and the part of it that is in use.
struct Axis {
  int64_t size, start, end;
  bool whole() const { return start == 0 && end == size; }
};

// Axes joined into fewer: one that is in use whole belongs to the entries of the one before it.
std::vector<Axis> joined(const Axis* from, const Axis* to) {
  std::vector<Axis> found;
  for (const Axis* axis = to; axis-- != from;) {
    if (!found.empty() && found.back().whole()) {
      const int64_t size = found.back().size;
      found.back() = {axis->size * size, axis->start * size, axis->end * size};
    } else {
      found.push_back(*axis);
    }
  }
  if (found.empty()) found.push_back({1, 0, 1});
  return found;  // the last axis first
}

// Where the runs of the last axis begin, of all entries in use of the axes before it.
std::vector<int64_t> runs(const std::vector<Axis>& axes) {
  std::vector<int64_t> found{0};
  int64_t step = axes[0].size;
  for (size_t axis = 1; axis < axes.size(); step *= axes[axis++].size) {
    std::vector<int64_t> more;
    for (int64_t i = axes[axis].start; i < axes[axis].end; ++i)
      for (const int64_t at : found) more.push_back(i * step + at);
    found = std::move(more);
  }
  return found;
}

Weights::Part part_of(std::vector<Axis> axes, int64_t shared, float bits) {
  Weights::Part part{bits >= kExactBits, true, power(bits, 1) - 1, {}, {}};
  for (const Axis& axis : axes) part.whole = part.whole && axis.whole();
  const std::vector<Axis> kept = joined(axes.data() + shared, axes.data() + axes.size());
  for (const int64_t at : runs(kept))
    if (kept[0].end > kept[0].start) part.columns.push_back({at + kept[0].start, at + kept[0].end});
  std::vector<Axis> rows = joined(axes.data(), axes.data() + shared);
  int64_t columns = 1;
  for (const Axis& axis : kept) columns *= axis.size;
  rows.insert(rows.begin(), Axis{columns, 0, columns});
  part.rows = runs(rows);
  return part;
}

// `edges` are starts and ends of every axis in each of several boxes, one box after another; none at all: everything is
// in use. `which` says which box it is, or how much of a share each has: then what lies in any of them is in use, axis
// by axis.
ffi::Error weights(ffi::ThreadPool& pool, const Floats& w, const Floats& bits, const Any& which, Floats& y,
                   ffi::Span<const int64_t> edges, int64_t shared) {
  const int64_t problems = static_cast<int64_t>(bits.element_count());
  const auto sizes = w.dimensions();
  const int64_t before = static_cast<int64_t>(bits.dimensions().size());
  const int64_t rank = static_cast<int64_t>(sizes.size()) - before;
  if (rank < 1 || shared < 1 || shared > rank) return wrong("rounding: ranks do not fit");
  const int64_t boxes = static_cast<int64_t>(edges.size()) / (2 * rank);
  const bool soft = which.element_type() == ffi::F32;
  if (boxes * 2 * rank != static_cast<int64_t>(edges.size()) || (!soft && which.element_type() != ffi::S32) ||
      (boxes > 0 && static_cast<int64_t>(which.element_count()) != problems * (soft ? boxes : 1)))
    return wrong("rounding: boxes do not fit");
  Weights p{1, 1, 0, 0, shared == rank, w.typed_data(), y.typed_data(), {}};
  // where all entries share a scale, those of the last axis are columns all the same, for registers of several
  const int64_t first_kept = p.together ? rank - 1 : shared;
  for (int64_t axis = 0; axis < rank; ++axis) (axis < first_kept ? p.rows : p.columns) *= sizes[before + axis];
  if (w.element_count() == 0) return ffi::Error::Success();
  p.block = p.together ? p.columns : std::min(p.columns, kColumns);
  p.blocks = ceil_div(p.columns, p.block);
  for (int64_t problem = 0; problem < problems; ++problem) {
    std::vector<Axis> axes;
    for (int64_t axis = before; axis < before + rank; ++axis)
      axes.push_back({sizes[axis], boxes > 0 ? sizes[axis] : 0, boxes > 0 ? 0 : sizes[axis]});
    for (int64_t box = 0; box < boxes; ++box) {
      const bool counts = soft ? static_cast<const float*>(which.untyped_data())[problem * boxes + box] > 0
                               : std::clamp<int64_t>(static_cast<const int32_t*>(which.untyped_data())[problem], 0,
                                                     boxes - 1) == box;
      for (int64_t axis = 0; counts && axis < rank; ++axis) {
        const int64_t start = edges[2 * rank * box + axis], end = edges[2 * rank * box + rank + axis];
        axes[axis].start = std::min(axes[axis].start, std::max<int64_t>(0, start));
        axes[axis].end = std::max(axes[axis].end, std::min(axes[axis].size, end));
      }
    }
    p.parts.push_back(part_of(std::move(axes), first_kept, bits.typed_data()[problem]));
  }
  return run(pool, p, chosen_set().rounding.weights, problems * p.blocks,
             2 * kWork * static_cast<int64_t>(w.element_count()));
}

#define BY_TYPE(CALL, ...)                                       \
  switch (x.element_type()) {                                    \
    case ffi::F32: return CALL<float>(__VA_ARGS__);              \
    case ffi::BF16: return CALL<bf16>(__VA_ARGS__);              \
    default: return wrong("rounding: this type is not known");   \
  }

ffi::Error Extremes(ffi::ThreadPool pool, Any x, ffi::Result<Floats> low, ffi::Result<Floats> high) {
  return guarded("rounding", [&] { BY_TYPE(extremes, pool, x, *low, *high) });
}
ffi::Error Rounded(ffi::ThreadPool pool, Any x, Floats bits, Floats low, Floats high, ffi::Result<Any> y) {
  return guarded("rounding", [&] { BY_TYPE(activations, pool, x, bits, low, high, *y) });
}
ffi::Error RoundedWeights(ffi::ThreadPool pool, Floats w, Floats bits, Any which, ffi::Result<Floats> y,
                          ffi::Span<const int64_t> edges, int64_t shared) {
  return guarded("rounding", [&] { return weights(pool, w, bits, which, *y, edges, shared); });
}

}  // namespace
}  // namespace flynas

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_round_extremes, flynas::Extremes,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_round_activations, flynas::Rounded,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Any>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_round_weights, flynas::RoundedWeights,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Any>()
                                  .Ret<flynas::Floats>()
                                  .Attr<ffi::Span<const int64_t>>("edges")
                                  .Attr<int64_t>("shared"));
