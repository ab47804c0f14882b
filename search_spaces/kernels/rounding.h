// What the parts of the compiled rounding share (rounding.cc, and rounding_tasks.h for each instruction set).

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace flynas {

constexpr int64_t kNumbers = 16384;   // of an activation in one task
constexpr int64_t kColumns = 512;     // of a weight in one task
constexpr float kLeastStep = 1e-12f;  // `LEAST_STEP` in quantizers/_uniform.py

// Integers of equal steps: `step * (code - zero_point)`, codes from 0 to `last`.
struct Levels {
  bool exact;  // numbers stay as they are
  float step, inverse, zero_point, last;
};

// Numbers that share one scale, `[count]`, for each of several problems; a task is a piece of one of them.
template <class E>
struct Activations {
  int64_t count, pieces;
  const E* x;                  // [problems, count]
  E* y;                        // the same
  float *lows, *highs;         // [problems, pieces]
  std::vector<Levels> levels;  // of every problem

  int64_t first(int64_t piece) const { return piece * kNumbers; }
  int64_t end(int64_t piece) const { return std::min(count, (piece + 1) * kNumbers); }
};

struct Columns {
  int64_t begin, end;
};

// A weight `[rows, columns]` for each of several problems; a column has one scale, or all of them have one together.
struct Weights {
  struct Part {
    bool exact, whole;             // whole: everything is in use
    float last;                    // the largest code
    std::vector<int64_t> rows;     // in use: where they begin
    std::vector<Columns> columns;  // in use
  };
  int64_t rows, columns, block, blocks;  // columns of one task; tasks of one problem
  bool together;
  const float* w;
  float* y;
  std::vector<Part> parts;
};

template <class E>
struct ActivationTasks {
  void (*extremes)(const Activations<E>&, int64_t);
  void (*round)(const Activations<E>&, int64_t);
};

struct bf16;

struct RoundingTasks {
  ActivationTasks<float> of_float32;
  ActivationTasks<bf16> of_bfloat16;
  void (*weights)(const Weights&, int64_t);
};

}  // namespace flynas
