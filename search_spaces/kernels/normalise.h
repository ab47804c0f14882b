// What the parts of the compiled normalisation share (normalise.cc, and normalise_tasks.h for each instruction set).

#pragma once

#include <algorithm>
#include <cstdint>

namespace flynas {

constexpr int64_t kChunkRows = 128;  // rows of one task; float32 sums of more of them would lose digits

// The order is that of `ACTIVATIONS` in normalise.py.
enum Activation : int32_t { kIdentity, kRelu, kRelu6, kHardSwish };

// Float32 rows of channels, `[rows, channels]`, cut into chunks of rows; vectors are `[channels]`.
struct Rows {
  int64_t rows, channels, active, chunk_rows, chunks;
  Activation activation;
  const float* x;
  const float* g;       // gradient of y
  const float* factor;  // y = activation(x * factor + shift) * share
  const float* shift;
  const float* share;  // null: all are 1
  const float* mean;
  const float* by_row;    // the gradient of x is factor * g - by_row - (x - mean) * by_value,
  const float* by_value;  // g being taken behind the activation and the share
  float* y;
  float* dx;
  float* partial;  // [chunks, 3, channels]: sums of a chunk; the third only with shares

  int64_t first_row(int64_t chunk) const { return chunk * chunk_rows; }
  int64_t end_row(int64_t chunk) const { return std::min(rows, (chunk + 1) * chunk_rows); }
};

struct NormaliseTasks {
  void (*moments)(const Rows&, int64_t);
  void (*forward)(const Rows&, int64_t);
  void (*sums)(const Rows&, int64_t);
  void (*gradient)(const Rows&, int64_t);
  void (*join_moments)(const Rows&, int64_t, double, double*, double*);
  void (*join_sums)(const Rows&, int64_t, double*);
};

}  // namespace flynas
