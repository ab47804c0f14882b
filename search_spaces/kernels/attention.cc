// Attention for XLA's CPU backend: factors of channels (squeeze-and-excitation, efficient channel attention) with the map
// that they scale, and factors of the maps of several heads; forward and gradients, float32.
//
// Which kind is meant is an operand, and only that one is computed. Results do not depend on the number of threads: a
// task is a sample, and what is summed over samples is summed in their order.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "depthwise.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Kinds = ffi::Span<const int32_t>;

// About so many operations as the pool's threads are worth waking for.
int64_t work_of(const ChannelMaps& p) {
  return 3 * p.batch * p.channels * (p.pixels + (p.kind == kSqueezeExcite ? p.reduced : p.taps));
}
int64_t work_of(const HeadMaps& p) { return p.batch * p.channels * p.in_use * (p.taps + 40); }

int64_t size_of(const Floats& array) { return static_cast<int64_t>(array.element_count()); }

void zero(ffi::Result<Floats>& result) { std::fill_n(result->typed_data(), result->element_count(), 0.0f); }

// The kind that `index` means; arrays of kinds that are not offered are empty.
template <class K>
bool chosen(const Ints& index, Kinds kinds, K& kind) {
  if (index.element_count() < 1 || kinds.size() == 0) return false;
  const int64_t place = std::clamp<int64_t>(index.typed_data()[0], 0, static_cast<int64_t>(kinds.size()) - 1);
  kind = static_cast<K>(kinds[place]);
  return true;
}

struct Bottleneck {
  const Floats &reduce, &reduce_bias, &expand, &expand_bias, &filter;
};

ffi::Error describe(ChannelMaps& p, const Floats& x, const Ints& chosen_by, const Bottleneck& weights, Kinds kinds,
                    int32_t inner, int32_t gate) {
  p = ChannelMaps{};
  const auto dims = x.dimensions();
  if (dims.size() != 4 || chosen_by.element_count() != 2 || !chosen(chosen_by, kinds, p.kind))
    return wrong("attention: ranks or kinds do not fit");
  p.batch = dims[0], p.pixels = dims[1] * dims[2], p.channels = dims[3];
  p.reduced = size_of(weights.reduce_bias);
  p.in_use = std::clamp<int64_t>(chosen_by.typed_data()[1], 0, p.reduced);
  p.taps = size_of(weights.filter);
  if (p.kind == kSqueezeExcite &&
      (size_of(weights.reduce) != p.channels * p.reduced || size_of(weights.expand) != p.channels * p.reduced ||
       size_of(weights.expand_bias) != p.channels))
    return wrong("attention: shapes of weights do not fit");
  if (p.kind == kEfficient && p.taps % 2 == 0) return wrong("attention: the filter is even, or there is none");
  p.inner = static_cast<Function>(inner), p.gate = static_cast<Function>(gate);
  p.x = x.typed_data();
  p.reduce = weights.reduce.typed_data(), p.reduce_bias = weights.reduce_bias.typed_data();
  p.expand = weights.expand.typed_data(), p.expand_bias = weights.expand_bias.typed_data();
  p.filter = weights.filter.typed_data();
  return ffi::Error::Success();
}

ffi::Error Factors(ffi::ThreadPool pool, Floats x, Ints chosen_by, Floats reduce, Floats reduce_bias, Floats expand,
                   Floats expand_bias, Floats filter, ffi::Result<Floats> mean, ffi::Result<Floats> factors,
                   Kinds kinds, int32_t inner, int32_t gate) {
  return guarded("attention", [&] {
    ChannelMaps p;
    ffi::Error error = describe(p, x, chosen_by, {reduce, reduce_bias, expand, expand_bias, filter}, kinds, inner, gate);
    if (error.failure()) return error;
    p.mean = mean->typed_data(), p.factors = factors->typed_data();
    return run(pool, p, chosen_set().attention.factors, p.batch, work_of(p));
  });
}

ffi::Error Scale(ffi::ThreadPool pool, Floats x, Floats factors, ffi::Result<Floats> y) {
  return guarded("attention", [&] {
    ChannelMaps p{};
    const auto dims = x.dimensions();
    if (dims.size() != 4 || size_of(factors) != dims[0] * dims[3]) return wrong("attention: shapes do not fit");
    p.batch = dims[0], p.pixels = dims[1] * dims[2], p.channels = dims[3];
    p.x = x.typed_data(), p.factors = factors.typed_data(), p.y = y->typed_data();
    return run(pool, p, chosen_set().attention.scale, p.batch, work_of(p));
  });
}

ffi::Error Gradient(ffi::ThreadPool pool, Floats x, Floats g, Floats mean, Floats factors, Ints chosen_by,
                    Floats reduce, Floats reduce_bias, Floats expand, Floats expand_bias, Floats filter,
                    ffi::Result<Floats> dx, ffi::Result<Floats> dreduce, ffi::Result<Floats> dreduce_bias,
                    ffi::Result<Floats> dexpand, ffi::Result<Floats> dexpand_bias, ffi::Result<Floats> dfilter,
                    Kinds kinds, int32_t inner, int32_t gate) {
  return guarded("attention", [&] {
    ChannelMaps p;
    ffi::Error error = describe(p, x, chosen_by, {reduce, reduce_bias, expand, expand_bias, filter}, kinds, inner, gate);
    if (error.failure()) return error;
    if (size_of(g) != size_of(x) || size_of(mean) != p.batch * p.channels || size_of(factors) != size_of(mean))
      return wrong("attention: shapes do not fit");
    std::vector<float> by_gate(p.batch * p.channels), hidden(p.batch * p.reduced), by_hidden(p.batch * p.reduced);
    p.g = g.typed_data(), p.mean = mean.typed_data(), p.factors = factors.typed_data(), p.dx = dx->typed_data();
    p.by_gate = by_gate.data(), p.hidden = hidden.data(), p.by_hidden = by_hidden.data();
    zero(dreduce), zero(dreduce_bias), zero(dexpand), zero(dexpand_bias), zero(dfilter);
    error = run(pool, p, chosen_set().attention.gradient, p.batch, work_of(p));
    if (error.failure()) return error;
    if (p.kind == kSqueezeExcite) {
      p.dreduce = dreduce->typed_data(), p.dexpand = dexpand->typed_data();
      for (int64_t n = 0; n < p.batch; ++n) {
        for (int64_t r = 0; r < p.reduced; ++r) dreduce_bias->typed_data()[r] += by_hidden[n * p.reduced + r];
        for (int64_t c = 0; c < p.channels; ++c) dexpand_bias->typed_data()[c] += by_gate[n * p.channels + c];
      }
      return run(pool, p, chosen_set().attention.weights, p.channels + p.reduced, 2 * p.batch * p.channels * p.reduced);
    }
    if (p.kind == kEfficient) {
      for (int64_t tap = 0; tap < p.taps; ++tap) {
        double sum = 0;
        for (int64_t n = 0; n < p.batch; ++n)
          for (int64_t c = 0; c < p.channels; ++c) {
            const int64_t seen = c + tap - p.taps / 2;
            if (seen >= 0 && seen < p.channels)
              sum += static_cast<double>(by_gate[n * p.channels + c]) * p.mean[n * p.channels + seen];
          }
        dfilter->typed_data()[tap] = static_cast<float>(sum);
      }
    }
    return error;
  });
}

ffi::Error describe(HeadMaps& p, const Floats& mean, const Floats& variance, const Ints& chosen_by,
                    const Floats& temperature, const Floats& by_mean, const Floats& by_both, Kinds kinds) {
  p = HeadMaps{};
  const auto dims = mean.dimensions();
  if (dims.size() != 3 || chosen_by.element_count() != 2 || temperature.element_count() != 1 ||
      !chosen(chosen_by, kinds, p.kind))
    return wrong("attention: ranks or kinds do not fit");
  p.batch = dims[0], p.heads = dims[1], p.channels = dims[2];
  p.in_use = std::clamp<int64_t>(chosen_by.typed_data()[1], 1, std::max<int64_t>(1, p.heads));
  p.temperature = temperature.typed_data()[0];
  p.mean = mean.typed_data(), p.variance = variance.typed_data();
  p.filter = p.of_both() ? by_both.typed_data() : by_mean.typed_data();
  p.taps = p.of_both() ? size_of(by_both) / 2 : size_of(by_mean);
  if (p.kind != kNoHeads && (p.taps % 2 == 0 || (p.of_both() && size_of(variance) != size_of(mean))))
    return wrong("attention: shapes of means and filters do not fit");
  return ffi::Error::Success();
}

ffi::Error HeadFactors(ffi::ThreadPool pool, Floats mean, Floats variance, Ints chosen_by, Floats temperature,
                       Floats by_mean, Floats by_both, ffi::Result<Floats> factors, Kinds kinds) {
  return guarded("attention", [&] {
    HeadMaps p;
    ffi::Error error = describe(p, mean, variance, chosen_by, temperature, by_mean, by_both, kinds);
    if (error.failure()) return error;
    p.factors = factors->typed_data();
    if (p.kind != kNoHeads) return run(pool, p, chosen_set().attention.head_factors, p.batch, work_of(p));
    std::fill_n(p.factors, size_of(mean), 1.0f);
    return error;
  });
}

ffi::Error HeadGradient(ffi::ThreadPool pool, Floats mean, Floats variance, Ints chosen_by, Floats temperature,
                        Floats by_mean, Floats by_both, Floats factors, Floats g, ffi::Result<Floats> dmean,
                        ffi::Result<Floats> dvariance, ffi::Result<Floats> dby_mean, ffi::Result<Floats> dby_both,
                        Kinds kinds) {
  return guarded("attention", [&] {
    HeadMaps p;
    ffi::Error error = describe(p, mean, variance, chosen_by, temperature, by_mean, by_both, kinds);
    if (error.failure()) return error;
    if (size_of(factors) != size_of(mean) || size_of(g) != size_of(mean)) return wrong("attention: shapes do not fit");
    zero(dby_mean), zero(dby_both);
    if (!p.of_both()) zero(dvariance);
    if (p.kind == kNoHeads) {
      zero(dmean);
      return error;
    }
    std::vector<float> partial(p.batch * p.taps * 2);
    p.g = g.typed_data(), p.factors = factors.typed_data(), p.partial = partial.data();
    p.dmean = dmean->typed_data(), p.dvariance = dvariance->typed_data();
    error = run(pool, p, chosen_set().attention.head_gradient, p.batch, work_of(p));
    if (error.failure()) return error;
    const int64_t parts = p.of_both() ? 2 : 1;
    float* to = p.of_both() ? dby_both->typed_data() : dby_mean->typed_data();
    for (int64_t entry = 0; entry < p.taps * parts; ++entry) {
      double sum = 0;
      for (int64_t n = 0; n < p.batch; ++n) sum += partial[(n * p.taps + entry / parts) * 2 + entry % parts];
      to[entry] = static_cast<float>(sum);
    }
    return error;
  });
}

}  // namespace
}  // namespace flynas

#define WEIGHTS .Arg<flynas::Floats>().Arg<flynas::Floats>().Arg<flynas::Floats>().Arg<flynas::Floats>().Arg<flynas::Floats>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_attention_factors, flynas::Factors,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Ints>() WEIGHTS
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<flynas::Kinds>("kinds")
                                  .Attr<int32_t>("inner")
                                  .Attr<int32_t>("gate"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_attention_scale, flynas::Scale,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_attention_gradient, flynas::Gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Ints>() WEIGHTS
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<flynas::Kinds>("kinds")
                                  .Attr<int32_t>("inner")
                                  .Attr<int32_t>("gate"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_attention_head_factors, flynas::HeadFactors,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Ints>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<flynas::Kinds>("kinds"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_attention_head_gradient, flynas::HeadGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Ints>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<flynas::Kinds>("kinds"));
