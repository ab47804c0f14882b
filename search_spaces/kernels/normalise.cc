// Batch normalisation followed by an activation, for XLA's CPU backend: statistics, forward, and the gradient.
//
// Float32 `[N, H, W, C]`, read as rows of channels. The statistics read the rows once, the normalisation once, and the
// gradient twice, activation included; the results do not depend on the number of threads. The number of leading
// channels in use is an operand: what is not in use comes out as zero. So is the share of each channel in the result,
// where widths are mixed.
//
// Source of the gradient: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3, in the form where the sums
// over rows are taken first.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "depthwise.h"
#include "normalise.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Count = ffi::Buffer<ffi::S32>;

ffi::Error describe(Rows& p, const Floats& x) {
  p = Rows{};
  if (x.dimensions().size() < 2) return wrong("normalise: ranks do not fit");
  p.channels = x.dimensions().back();
  p.rows = p.channels == 0 ? 0 : static_cast<int64_t>(x.element_count()) / p.channels;
  p.active = p.channels;
  p.chunk_rows = kChunkRows;
  p.chunks = ceil_div(p.rows, p.chunk_rows);
  p.x = x.typed_data();
  return ffi::Error::Success();
}

bool fit(const Rows& p, std::initializer_list<const Floats*> vectors) {
  return std::all_of(vectors.begin(), vectors.end(), [&](const Floats* vector) {
    return static_cast<int64_t>(vector->element_count()) == p.channels;
  });
}

// About so many operations as the pool's threads are worth waking for.
int64_t work_of(const Rows& p) { return 4 * p.rows * p.channels; }

// factor and shift of `y = activation(x * factor + shift)`
void affine(const Rows& p, const Floats& scale, const Floats& bias, const Floats& mean, const Floats& variance,
            float epsilon, std::vector<float>& factor, std::vector<float>& shift) {
  for (int64_t c = 0; c < p.channels; ++c) {
    factor[c] = scale.typed_data()[c] / std::sqrt(variance.typed_data()[c] + epsilon);
    shift[c] = bias.typed_data()[c] - mean.typed_data()[c] * factor[c];
  }
}

// Sets the shares, unless there are none.
bool fit_share(Rows& p, const Floats& share) {
  if (share.element_count() == 0) return true;
  p.share = share.typed_data();
  return fit(p, {&share});
}

ffi::Error moments(ffi::ThreadPool& pool, const Floats& x, float* mean, float* variance) {
  Rows p;
  ffi::Error error = describe(p, x);
  if (error.failure()) return error;
  if (p.rows == 0) {  // the mean of nothing is not a number
    std::fill_n(mean, p.channels, std::nanf(""));
    std::fill_n(variance, p.channels, std::nanf(""));
    return error;
  }
  std::vector<float> partial(p.chunks * 3 * p.channels);
  p.partial = partial.data();
  const NormaliseTasks& set = chosen_set().normalise;
  error = run(pool, p, set.moments, p.chunks, work_of(p));
  if (error.failure()) return error;
  // Chunks are joined in their order, whoever computed them.
  std::vector<double> about(p.channels), squares(p.channels);
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk)
    set.join_moments(p, chunk, static_cast<double>(p.first_row(chunk)), about.data(), squares.data());
  for (int64_t c = 0; c < p.channels; ++c) {
    mean[c] = static_cast<float>(about[c]);
    variance[c] = static_cast<float>(std::max(0.0, squares[c] / static_cast<double>(p.rows)));
    if (squares[c] != squares[c]) variance[c] = std::nanf("");  // `max` would hide it
  }
  return error;
}

ffi::Error forward(ffi::ThreadPool& pool, const Floats& x, const Floats& scale, const Floats& bias, const Floats& mean,
                   const Floats& variance, const Count& active, const Floats& share, float* y, int32_t activation,
                   float epsilon) {
  Rows p;
  ffi::Error error = describe(p, x);
  if (error.failure() || p.rows == 0) return error;
  if (!fit(p, {&scale, &bias, &mean, &variance}) || active.element_count() != 1 || !fit_share(p, share))
    return wrong("normalise: shapes do not fit");
  std::vector<float> factor(p.channels), shift(p.channels);
  affine(p, scale, bias, mean, variance, epsilon, factor, shift);
  p.factor = factor.data(), p.shift = shift.data(), p.y = y;
  p.activation = static_cast<Activation>(activation);
  p.active = std::min<int64_t>(p.channels, std::max(0, active.typed_data()[0]));
  return run(pool, p, chosen_set().normalise.forward, p.chunks, work_of(p));
}

ffi::Error backward(ffi::ThreadPool& pool, const Floats& x, const Floats& g, const Floats& scale, const Floats& bias,
                    const Floats& mean, const Floats& variance, const Count& active, const Floats& share, float* dx,
                    float* dscale, float* dbias, float* dshare, int32_t activation, float epsilon) {
  Rows p;
  ffi::Error error = describe(p, x);
  if (error.failure()) return error;
  if (!fit(p, {&scale, &bias, &mean, &variance}) || active.element_count() != 1 ||
      g.element_count() != x.element_count() || !fit_share(p, share))
    return wrong("normalise: shapes do not fit");
  const int64_t channels = p.channels;
  std::fill_n(dscale, channels, 0.0f);
  std::fill_n(dbias, channels, 0.0f);
  std::fill_n(dshare, share.element_count(), 0.0f);
  if (p.rows == 0) return error;
  std::vector<float> factor(channels), shift(channels), by_row(channels), by_value(channels);
  std::vector<float> partial(p.chunks * 3 * channels);
  affine(p, scale, bias, mean, variance, epsilon, factor, shift);
  p.factor = factor.data(), p.shift = shift.data(), p.mean = mean.typed_data(), p.g = g.typed_data(), p.dx = dx;
  p.by_row = by_row.data(), p.by_value = by_value.data(), p.partial = partial.data();
  p.activation = static_cast<Activation>(activation);
  p.active = std::min<int64_t>(channels, std::max(0, active.typed_data()[0]));
  const NormaliseTasks& set = chosen_set().normalise;
  error = run(pool, p, set.sums, p.chunks, work_of(p));
  if (error.failure()) return error;
  std::vector<double> sums(3 * channels);
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) set.join_sums(p, chunk, sums.data());
  for (int64_t c = 0; c < p.active; ++c) {
    const double sum = sums[c], product = sums[channels + c];
    const double rows = static_cast<double>(p.rows), spread = variance.typed_data()[c] + epsilon;
    dbias[c] = static_cast<float>(sum);
    if (p.share != nullptr) dshare[c] = static_cast<float>(sums[2 * channels + c]);
    dscale[c] = static_cast<float>(product / std::sqrt(spread));
    by_row[c] = static_cast<float>(factor[c] * sum / rows);
    by_value[c] = static_cast<float>(factor[c] * product / rows / spread);
  }
  return run(pool, p, set.gradient, p.chunks, work_of(p));
}

ffi::Error Moments(ffi::ThreadPool pool, Floats x, ffi::Result<Floats> mean, ffi::Result<Floats> variance) {
  return guarded("normalise", [&] { return moments(pool, x, mean->typed_data(), variance->typed_data()); });
}
ffi::Error Forward(ffi::ThreadPool pool, Floats x, Floats scale, Floats bias, Floats mean, Floats variance,
                   Count active, Floats share, ffi::Result<Floats> y, int32_t activation, float epsilon) {
  return guarded("normalise", [&] {
    return forward(pool, x, scale, bias, mean, variance, active, share, y->typed_data(), activation, epsilon);
  });
}
ffi::Error Backward(ffi::ThreadPool pool, Floats x, Floats g, Floats scale, Floats bias, Floats mean, Floats variance,
                    Count active, Floats share, ffi::Result<Floats> dx, ffi::Result<Floats> dscale,
                    ffi::Result<Floats> dbias, ffi::Result<Floats> dshare, int32_t activation, float epsilon) {
  return guarded("normalise", [&] {
    return backward(pool, x, g, scale, bias, mean, variance, active, share, dx->typed_data(), dscale->typed_data(),
                    dbias->typed_data(), dshare->typed_data(), activation, epsilon);
  });
}

}  // namespace
}  // namespace flynas

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_normalise_moments, flynas::Moments,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_normalise_forward, flynas::Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Count>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<int32_t>("activation")
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_normalise_backward, flynas::Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Count>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<int32_t>("activation")
                                  .Attr<float>("epsilon"));
