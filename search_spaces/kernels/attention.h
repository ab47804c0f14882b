// What the parts of the compiled attention share (attention.cc, and attention_tasks.h for each instruction set).

#pragma once

#include <cstdint>

namespace flynas {

// The orders are those of `KINDS`, `HEAD_KINDS` and `FUNCTIONS` in attention.py.
enum Attending : int32_t { kNoAttention, kSqueezeExcite, kEfficient };
enum HeadAttending : int32_t { kNoHeads, kMean, kMeanSoftmax, kMeanVariance, kMeanVarianceSoftmax };
enum Function : int32_t { kFIdentity, kFRelu, kFRelu6, kFHardSwish, kFHardSigmoid, kFSigmoid, kFSilu };

// Factors of the channels of every map, and what becomes of a map under them. One task is one sample.
struct ChannelMaps {
  int64_t batch, pixels, channels;
  int64_t reduced, in_use;  // channels of the bottleneck: all, and the leading ones in use
  int64_t taps;
  Attending kind;
  Function inner, gate;
  const float* x;        // [batch, pixels, channels]
  const float* g;        // gradient of the result
  const float *reduce, *reduce_bias;  // [channels, reduced], [reduced]
  const float *expand, *expand_bias;  // [reduced, channels], [channels]
  const float* filter;                // [taps]
  float *mean, *factors;              // [batch, channels]
  float *y, *dx;
  float *hidden, *by_hidden;  // [batch, reduced]: the bottleneck behind its function, the gradient before it
  float* by_gate;             // [batch, channels]: the gradient before the last function
  float *dreduce, *dexpand;
};

// Factors of the maps of several heads by their means and variances, `[batch, heads, channels]` each.
struct HeadMaps {
  int64_t batch, heads, channels;
  int64_t in_use;  // leading heads
  int64_t taps;
  HeadAttending kind;
  float temperature;
  const float *mean, *variance;
  const float* filter;  // [taps], or of mean and variance [taps, 2]
  const float* g;       // gradient of the factors
  float* factors;
  float *dmean, *dvariance;
  float* partial;  // [batch, taps, 2]

  bool of_both() const { return kind == kMeanVariance || kind == kMeanVarianceSoftmax; }
  bool softmax() const { return kind == kMeanSoftmax || kind == kMeanVarianceSoftmax; }
};

struct AttentionTasks {
  void (*factors)(const ChannelMaps&, int64_t);
  void (*scale)(const ChannelMaps&, int64_t);
  void (*gradient)(const ChannelMaps&, int64_t);
  void (*weights)(const ChannelMaps&, int64_t);  // a row of `dreduce`, then those of `dexpand`
  void (*head_factors)(const HeadMaps&, int64_t);
  void (*head_gradient)(const HeadMaps&, int64_t);
};

}  // namespace flynas
