// Depthwise convolution for XLA's CPU backend: forward, both gradients, and several filters per channel at once.
//
// NHWC, SAME padding as XLA places it (the odd row or column goes to the end), float32 or bfloat16 (summed in float32),
// stride 1 or 2. Filters are [heads, k, k, C]. Three numbers are operands, so that changing them compiles nothing:
// the leading channels in use, the size of the window in use (the centre of the filters), and the heads in use. What is
// not in use is never computed and comes out as zero.
//
// With several heads the result is the largest of their values (max-out); the maps themselves are never stored. Where
// somebody needs the gradient, one byte per value says which head it came from. Maps can be scaled per sample, channel
// and head before they are compared (attention): the scale multiplies the filters.
//
// Threads come from XLA's own pool. The result does not depend on their number: every output is computed by one task,
// and the weights' gradient is summed in a fixed order over a number of sample groups that depends on the batch alone.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "depthwise.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {

const Set& chosen_set() {
  static const Set* chosen = [] {
#if defined(__x86_64__)
    // FLYNAS_KERNEL_ISA can only lower the choice: for tests and for comparing.
    const char* wish = std::getenv("FLYNAS_KERNEL_ISA");
    if (wish != nullptr && *wish == 0) wish = nullptr;
    const bool no_avx512 = wish != nullptr && std::strcmp(wish, "avx512") != 0;
    const bool no_avx2 = no_avx512 && std::strcmp(wish, "avx2") != 0;
    __builtin_cpu_init();
    if (!no_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
      return &kAvx512;
    if (!no_avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAvx2;
#endif
    return &kBaseline;
  }();
  return *chosen;
}

namespace {

template <class E>
const Tasks<E>& tasks();
template <>
const Tasks<float>& tasks() {
  return chosen_set().of_float32;
}
template <>
const Tasks<bf16>& tasks() {
  return chosen_set().of_bfloat16;
}

using Dims = ffi::Span<const int64_t>;
using Any = ffi::AnyBuffer;
using Floats = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;
using Sizes = ffi::Buffer<ffi::S32>;  // leading channels, window and heads in use

// Fills in everything but the pointers. `x`, `w` and `y` are the shapes of images, filters and results.
template <class E>
ffi::Error describe(Problem<E>& p, Dims x, Dims w, Dims y, const Sizes& sizes, int32_t stride) {
  p = Problem<E>{};
  if (x.size() != 4 || w.size() != 4 || y.size() != 4 || sizes.element_count() != 3)
    return wrong("depthwise: ranks do not fit");
  if (stride < 1 || stride > 2 || x[0] != y[0] || x[3] != y[3] || x[3] != w[3] || w[1] != w[2] || w[1] % 2 == 0 ||
      y[1] != ceil_div(x[1], stride) || y[2] != ceil_div(x[2], stride) || w[0] < 1 || w[0] > 255)
    return wrong("depthwise: shapes or stride do not fit together");
  p.batch = x[0], p.in_h = x[1], p.in_w = x[2], p.channels = x[3], p.out_h = y[1], p.out_w = y[2], p.stride = stride;
  p.all_heads = w[0], p.full_kernel = w[1];
  const int32_t* wanted = sizes.typed_data();
  p.active = std::min<int64_t>(p.channels, std::max<int64_t>(0, wanted[0]));
  // An even window would not have the centre of the filters as its centre.
  p.kernel = std::min<int64_t>(p.full_kernel, std::max<int64_t>(1, wanted[1])) | 1;
  p.heads = std::min<int64_t>(p.all_heads, std::max<int64_t>(0, wanted[2]));
  if (p.heads == 0) p.active = 0, p.heads = 1;
  p.pad_h = std::max<int64_t>(0, (p.out_h - 1) * stride + p.kernel - p.in_h) / 2;
  p.pad_w = std::max<int64_t>(0, (p.out_w - 1) * stride + p.kernel - p.in_w) / 2;
  return ffi::Error::Success();
}

// Cuts `rows` rows and the channels into tasks of at most `band` channels, narrower where `threads` would go idle.
template <class E>
void cut(Problem<E>& p, int64_t rows, int64_t band, int64_t threads) {
  if (p.batch * ceil_div(p.channels, band) < 4 * threads) band = std::min(band, kNarrow);
  const int64_t line = std::max(p.in_w * p.stride, p.out_w * p.stride) * std::min(band, p.channels) *
                       static_cast<int64_t>(sizeof(E)) * (p.index == nullptr ? 1 : p.heads);
  p.strip_rows = std::min(rows, std::max<int64_t>(4, kStripBytes / std::max<int64_t>(1, line)));
  p.strips = ceil_div(rows, p.strip_rows);
  p.band = band;
  p.bands = ceil_div(p.channels, band);
}

template <class E>
int64_t work_of(const Problem<E>& p) {
  return p.batch * p.out_h * p.out_w * p.kernel * p.kernel * p.active * p.heads;
}

template <class E>
ffi::Error forward(ffi::ThreadPool& pool, Any x, Any w, Floats scale, Sizes sizes, ffi::Result<Any> y,
                   ffi::Result<Bytes> index, int32_t stride) {
  Problem<E> p;
  ffi::Error error = describe(p, x.dimensions(), w.dimensions(), y->dimensions(), sizes, stride);
  if (error.failure() || y->element_count() == 0) return error;
  p.x = static_cast<const E*>(x.untyped_data()), p.w = static_cast<const E*>(w.untyped_data());
  p.y = static_cast<E*>(y->untyped_data());
  p.scale = scale.element_count() == 0 ? nullptr : scale.typed_data();
  p.index_out = index->element_count() == 0 ? nullptr : index->typed_data();
  cut(p, p.out_h, kBand, pool.num_threads());
  return run(pool, p, tasks<E>().forward, p.batch * p.strips * p.bands, work_of(p));
}

template <class E>
ffi::Error input_gradient(ffi::ThreadPool& pool, Any g, Bytes index, Any w, Floats scale, Sizes sizes,
                          ffi::Result<Any> dx, int32_t stride) {
  Problem<E> p;
  ffi::Error error = describe(p, dx->dimensions(), w.dimensions(), g.dimensions(), sizes, stride);
  if (error.failure() || dx->element_count() == 0) return error;
  p.g = static_cast<const E*>(g.untyped_data()), p.w = static_cast<const E*>(w.untyped_data());
  p.dx = static_cast<E*>(dx->untyped_data());
  p.scale = scale.element_count() == 0 ? nullptr : scale.typed_data();
  p.index = index.element_count() == 0 ? nullptr : index.typed_data();
  cut(p, p.in_h, p.index == nullptr ? kBand : 2 * kBlock, pool.num_threads());
  return run(pool, p, tasks<E>().input_gradient, p.batch * p.strips * p.bands, work_of(p));
}

template <class E>
ffi::Error weight_gradient(ffi::ThreadPool& pool, Any x, Any g, Bytes index, Floats scale, Sizes sizes,
                           ffi::Result<Floats> dw, int32_t stride) {
  static thread_local Scratch partials;
  Problem<E> p;
  ffi::Error error = describe(p, x.dimensions(), dw->dimensions(), g.dimensions(), sizes, stride);
  if (error.failure() || dw->element_count() == 0) return error;
  p.x = static_cast<const E*>(x.untyped_data()), p.g = static_cast<const E*>(g.untyped_data());
  p.scale = scale.element_count() == 0 ? nullptr : scale.typed_data();
  p.index = index.element_count() == 0 ? nullptr : index.typed_data();
  float* total = dw->typed_data();
  const int64_t size = dw->element_count();
  if (g.element_count() == 0) {
    std::memset(total, 0, sizeof(float) * size);
    return error;
  }
  cut(p, p.out_h, kBlock, 1);
  p.groups = std::min(p.batch, kGroups);
  p.partial = p.groups == 1 ? total : partials.at_least(p.groups * size);
  error = run(pool, p, tasks<E>().weight_gradient, p.groups * p.bands, work_of(p));
  if (error.failure() || p.groups == 1) return error;
  std::memcpy(total, p.partial, sizeof(float) * size);
  for (int64_t group = 1; group < p.groups; ++group) {
    const float* from = p.partial + group * size;
    for (int64_t i = 0; i < size; ++i) total[i] += from[i];
  }
  return error;
}

// The shape of what a convolution of `x` by `w` gives.
struct Shape {
  int64_t sizes[4];
  Shape(Dims x, int32_t stride)
      : sizes{x[0], ceil_div(x[1], std::max(1, stride)), ceil_div(x[2], std::max(1, stride)), x[3]} {}
  Dims dims() const { return Dims(sizes, 4); }
};

template <class E>
ffi::Error moments(ffi::ThreadPool& pool, Any x, Any w, Sizes sizes, ffi::Result<Floats> mean,
                   ffi::Result<Floats> variance, int32_t stride) {
  Problem<E> p;
  if (x.dimensions().size() != 4) return wrong("depthwise: ranks do not fit");
  ffi::Error error = describe(p, x.dimensions(), w.dimensions(), Shape(x.dimensions(), stride).dims(), sizes, stride);
  if (error.failure()) return error;
  if (static_cast<int64_t>(mean->element_count()) != p.batch * p.all_heads * p.channels ||
      mean->element_count() != variance->element_count())
    return wrong("depthwise: shapes of means do not fit");
  p.x = static_cast<const E*>(x.untyped_data()), p.w = static_cast<const E*>(w.untyped_data());
  p.mean = mean->typed_data(), p.variance = variance->typed_data();
  if (x.element_count() == 0) {  // the mean of nothing is not a number
    std::fill_n(p.mean, mean->element_count(), std::nanf(""));
    std::fill_n(p.variance, variance->element_count(), std::nanf(""));
    return error;
  }
  cut(p, p.out_h, kBand, pool.num_threads());
  return run(pool, p, tasks<E>().moments, p.batch * p.bands, work_of(p));
}

template <class E>
ffi::Error scale_gradient(ffi::ThreadPool& pool, Any x, Any w, Any g, Bytes index, Sizes sizes,
                          ffi::Result<Floats> dscale, int32_t stride) {
  Problem<E> p;
  ffi::Error error = describe(p, x.dimensions(), w.dimensions(), g.dimensions(), sizes, stride);
  if (error.failure() || dscale->element_count() == 0) return error;
  if (index.element_count() != g.element_count())
    return wrong("depthwise: shapes of gradient and index do not fit");
  p.x = static_cast<const E*>(x.untyped_data()), p.w = static_cast<const E*>(w.untyped_data());
  p.g = static_cast<const E*>(g.untyped_data()), p.index = index.typed_data(), p.dscale = dscale->typed_data();
  cut(p, p.out_h, kBand, pool.num_threads());
  return run(pool, p, tasks<E>().scale_gradient, p.batch * p.bands, work_of(p));
}

#define BY_TYPE(TYPE, CALL, ...)                                                  \
  return guarded("depthwise", [&] {                                               \
    switch (TYPE) {                                                               \
      case ffi::F32: return CALL<float>(__VA_ARGS__);                             \
      case ffi::BF16: return CALL<bf16>(__VA_ARGS__);                             \
      default: return wrong("depthwise: only float32 and bfloat16 are computed"); \
    }                                                                             \
  });

ffi::Error Forward(ffi::ThreadPool pool, Any x, Any w, Floats scale, Sizes sizes, ffi::Result<Any> y,
                   ffi::Result<Bytes> index, int32_t stride) {
  BY_TYPE(x.element_type(), forward, pool, x, w, scale, sizes, y, index, stride)
}
ffi::Error InputGradient(ffi::ThreadPool pool, Any g, Bytes index, Any w, Floats scale, Sizes sizes,
                         ffi::Result<Any> dx, int32_t stride) {
  BY_TYPE(g.element_type(), input_gradient, pool, g, index, w, scale, sizes, dx, stride)
}
ffi::Error WeightGradient(ffi::ThreadPool pool, Any x, Any g, Bytes index, Floats scale, Sizes sizes,
                          ffi::Result<Floats> dw, int32_t stride) {
  BY_TYPE(x.element_type(), weight_gradient, pool, x, g, index, scale, sizes, dw, stride)
}
ffi::Error Moments(ffi::ThreadPool pool, Any x, Any w, Sizes sizes, ffi::Result<Floats> mean,
                   ffi::Result<Floats> variance, int32_t stride) {
  BY_TYPE(x.element_type(), moments, pool, x, w, sizes, mean, variance, stride)
}
ffi::Error ScaleGradient(ffi::ThreadPool pool, Any x, Any w, Any g, Bytes index, Sizes sizes,
                         ffi::Result<Floats> dscale, int32_t stride) {
  BY_TYPE(x.element_type(), scale_gradient, pool, x, w, g, index, sizes, dscale, stride)
}

}  // namespace
}  // namespace flynas

extern "C" const char* flynas_depthwise_isa() { return flynas::chosen_set().name; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_forward, flynas::Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Sizes>()
                                  .Ret<flynas::Any>()
                                  .Ret<flynas::Bytes>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_input_gradient, flynas::InputGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Bytes>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Sizes>()
                                  .Ret<flynas::Any>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_weight_gradient, flynas::WeightGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Bytes>()
                                  .Arg<flynas::Floats>()
                                  .Arg<flynas::Sizes>()
                                  .Ret<flynas::Floats>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_moments, flynas::Moments,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Sizes>()
                                  .Ret<flynas::Floats>()
                                  .Ret<flynas::Floats>()
                                  .Attr<int32_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_depthwise_scale_gradient, flynas::ScaleGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Any>()
                                  .Arg<flynas::Bytes>()
                                  .Arg<flynas::Sizes>()
                                  .Ret<flynas::Floats>()
                                  .Attr<int32_t>("stride"));
