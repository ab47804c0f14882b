// Stochastic gradient descent with momentum for many arrays in one call, for XLA's CPU backend.
//
// XLA compiles a loop or more for every array: a fifth of what it takes to compile a supernet's step, and hundreds of
// small calls in every step. Arguments are the learning rate and then, array by array in the same order, parameters,
// momenta, gradients; results are parameters and momenta, which may lie where the arguments do.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {
namespace {

constexpr int64_t kPiece = 16384;  // numbers of one task

struct Piece {
  const float *param, *momentum, *gradient;
  float *new_param, *new_momentum;
  int64_t count;
  float decay;
};

struct Descent {
  std::vector<Piece> pieces;
  std::vector<double> squares;  // of the gradient, by piece
  float rate, momentum, factor;
};

void square(const Descent& p, int64_t task) {
  const Piece& piece = p.pieces[task];
  constexpr int kLanes = 16;  // sums that do not wait for each other
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= piece.count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += piece.gradient[i + lane] * piece.gradient[i + lane];
  double sum = 0;
  for (; i < piece.count; ++i) sum += piece.gradient[i] * piece.gradient[i];
  for (float part : sums) sum += part;
  const_cast<Descent&>(p).squares[task] = sum;  // its own number
}

void descend(const Descent& p, int64_t task) {
  const Piece& piece = p.pieces[task];
  const float *param = piece.param, *momentum = piece.momentum, *gradient = piece.gradient;
  float *new_param = piece.new_param, *new_momentum = piece.new_momentum;
  const float decay = piece.decay, rate = p.rate, share = p.momentum, factor = p.factor;
// results are the arguments themselves, or apart from them
#pragma GCC ivdep
  for (int64_t i = 0; i < piece.count; ++i) {
    const float slope = gradient[i] * factor + decay * param[i];
    const float speed = slope + share * momentum[i];
    new_momentum[i] = speed;
    new_param[i] = param[i] - rate * (slope + share * speed);
  }
}

ffi::Error sgd(ffi::ThreadPool& pool, ffi::RemainingArgs& args, ffi::RemainingRets& rets, ffi::Span<const float> decays,
               float momentum, float largest_norm) {
  const size_t arrays = decays.size();
  if (args.size() != 1 + 3 * arrays || rets.size() != 2 * arrays) return wrong("sgd: numbers of arrays do not fit");
  using Floats = ffi::Buffer<ffi::F32>;
  auto rate = args.get<ffi::Buffer<ffi::F32, 0>>(0);
  if (!rate.has_value()) return wrong("sgd: the learning rate is no float32 scalar");
  Descent p{{}, {}, *rate->typed_data(), momentum, 1};
  int64_t total = 0;
  for (size_t i = 0; i < arrays; ++i) {
    auto param = args.get<Floats>(1 + i), speed = args.get<Floats>(1 + arrays + i);
    auto gradient = args.get<Floats>(1 + 2 * arrays + i);
    auto new_param = rets.get<Floats>(i), new_speed = rets.get<Floats>(arrays + i);
    if (!param.has_value() || !speed.has_value() || !gradient.has_value() || !new_param.has_value() ||
        !new_speed.has_value())
      return wrong("sgd: arrays are not float32");
    const int64_t count = static_cast<int64_t>(param->element_count());
    for (const size_t other : {speed->element_count(), gradient->element_count(), (*new_param)->element_count(),
                               (*new_speed)->element_count()})
      if (static_cast<int64_t>(other) != count) return wrong("sgd: shapes do not fit");
    for (int64_t at = 0; at < count; at += kPiece)
      p.pieces.push_back({param->typed_data() + at, speed->typed_data() + at, gradient->typed_data() + at,
                          (*new_param)->typed_data() + at, (*new_speed)->typed_data() + at,
                          std::min(kPiece, count - at), decays[i]});
    total += count;
  }
  const int64_t tasks = static_cast<int64_t>(p.pieces.size());
  if (tasks == 0) return ffi::Error::Success();
  p.squares.resize(tasks);
  ffi::Error error = run(pool, p, square, tasks, 4 * total);
  if (error.failure()) return error;
  double sum = 0;
  for (const double part : p.squares) sum += part;
  const double norm = std::sqrt(sum);
  if (!(norm < largest_norm)) p.factor = static_cast<float>(largest_norm / norm);  // what is not a number stays so
  return run(pool, p, descend, tasks, 4 * total);
}

ffi::Error Sgd(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Span<const float> decays,
               float momentum, float largest_norm) {
  return guarded("sgd", [&] { return sgd(pool, args, rets, decays, momentum, largest_norm); });
}

}  // namespace
}  // namespace flynas

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_sgd, flynas::Sgd,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const float>>("decays")
                                  .Attr<float>("momentum")
                                  .Attr<float>("largest_norm"));
