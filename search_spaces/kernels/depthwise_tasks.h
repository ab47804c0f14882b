// The arithmetic of depthwise convolution for one instruction set. Each depthwise_<set>.cc includes this file, with
// NAMESPACE its name, SET the name of its table, TARGET the attribute that lets the compiler use it, WIDEST the floats of
// one register, and SPECIAL whether the usual kernel sizes get code of their own (less to compile where nobody runs it).
//
// Nothing is copied and no border is filled in: images are read in place, WIDEST channels at a time (then 8, 4, 1), and
// taps that fall outside are skipped. A tile of up to 8 neighbouring outputs is kept in registers; a pixel is loaded once
// and multiplied with every tap of a kernel row that meets it there.

#include "attention_tasks.h"
#include "depthwise.h"
#include "lanes.h"
#include "normalise_tasks.h"
#include "rounding_tasks.h"

namespace flynas {
namespace NAMESPACE {

// A sum over windows, in strides of elements: y[u] = sum over a, b of x[a][u * S + b] * w[a][b], or the largest of these
// sums over heads. `x` and `w` are at their first channel.
template <class E>
struct Row {
  const E* x;                            // the pixel under the first tap of the first output, perhaps outside the image
  int64_t x_row, x_col, x_head;          // from one row, column, head to the next
  const float* w;                        // the first tap
  int64_t w_row, w_col, w_head;
  E* y;
  int64_t y_col;
  uint8_t* index;                        // which head was the largest, or null
  int64_t first_col, in_w;               // column of the first tap of the first output; columns there are
  int64_t taps_h, taps_w;                // rows of taps (all inside the image), columns of taps
  int64_t outputs, heads;
  bool maximum;
};

// `left` (at most T) outputs from output `u` on. `Edge`: some taps or outputs may be outside. K = 0: any width.
template <int N, int K, int S, int T, bool Edge, class E>
INLINE void tile(const Row<E>& row, int64_t u, int64_t left, int64_t channel) {
  using L = Lanes<N>;
  using V = typename L::V;
  using I = typename L::I;
  const int64_t col = row.first_col + u * S;
  // Hardware prefetching does not follow jumps from pixel to pixel: ask for the next row, and for where outputs will go.
  // On Zen 4 this made the kernel a third faster.
  const E* below = row.x + row.taps_h * row.x_row + (u * S + K / 2) * row.x_col + channel;
#pragma GCC unroll 16
  for (int t = 0; t < T * S; ++t) __builtin_prefetch(below + t * row.x_col, 0, 2);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) __builtin_prefetch(row.y + (u + 8 + t) * row.y_col + channel, 1, 3);
  V best[T], sum[T];
  I which[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) sum[t] = V{};
  for (int64_t head = 0; head < row.heads; ++head) {
    const E* line = row.x + head * row.x_head + u * S * row.x_col + channel;
    const float* taps = row.w + head * row.w_head + channel;
    for (int64_t a = 0; a < row.taps_h; ++a, line += row.x_row, taps += row.w_row) {
      if constexpr (K > 0) {
        V w[K > 0 ? K : 1];
#pragma GCC unroll 8
        for (int b = 0; b < K; ++b) w[b] = L::load(taps + b * row.w_col);
#pragma GCC unroll 32
        for (int j = 0; j < (T - 1) * S + K; ++j) {
          if (Edge && static_cast<uint64_t>(col + j) >= static_cast<uint64_t>(row.in_w)) continue;
          const V v = L::load(line + j * row.x_col);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) {
            const int b = j - t * S;
            if (b >= 0 && b < K) sum[t] += v * w[b];
          }
        }
      } else {
        for (int64_t b = 0; b < row.taps_w; ++b) {
          const V w = L::load(taps + b * row.w_col);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) {
            if (Edge && static_cast<uint64_t>(col + b + t * S) >= static_cast<uint64_t>(row.in_w)) continue;
            sum[t] += L::load(line + (b + t * S) * row.x_col) * w;
          }
        }
      }
    }
    if (row.maximum) {
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const I larger = L::exceeds(sum[t], best[t]);
        best[t] = head == 0 ? sum[t] : L::choose(larger, sum[t], best[t]);
        which[t] = head == 0 ? L::all(0) : L::choose(larger, L::all(static_cast<int32_t>(head)), which[t]);
        sum[t] = V{};
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    if (Edge && t >= left) break;
    L::store(row.y + (u + t) * row.y_col + channel, row.maximum ? best[t] : sum[t]);
    if (row.index != nullptr) L::store_byte(row.index + (u + t) * row.y_col + channel, which[t]);
  }
}

// All outputs of a row for `count` channels.
template <int N, int K, int S, class E>
TARGET void row_of_lanes(const Row<E>& row, int64_t count) {
  for (int64_t u = 0; u < row.outputs;) {
    const int64_t left = row.outputs - u, col = row.first_col + u * S, taps = K > 0 ? K : row.taps_w;
    const bool inside = col >= 0 && left >= 8 && col + 7 * S + taps <= row.in_w;
    int64_t channel = 0;
    if (inside) {
      for (; channel + N <= count; channel += N) tile<N, K, S, 8, false>(row, u, left, channel);
      u += 8;
    } else if (left > 4) {
      for (; channel + N <= count; channel += N) tile<N, K, S, 8, true>(row, u, left, channel);
      u += 8;
    } else {
      for (; channel + N <= count; channel += N) tile<N, K, S, 4, true>(row, u, left, channel);
      u += 4;
    }
  }
}

template <int N, class E>
TARGET void row_of_kernel(const Row<E>& row, int64_t stride, int64_t count) {
#if !SPECIAL
  stride == 1 ? row_of_lanes<N, 0, 1>(row, count) : row_of_lanes<N, 0, 2>(row, count);
#else
  if (stride == 1) {
    switch (row.taps_w) {
      case 1: return row_of_lanes<N, 1, 1>(row, count);
      case 2: return row_of_lanes<N, 2, 1>(row, count);
      case 3: return row_of_lanes<N, 3, 1>(row, count);
      case 4: return row_of_lanes<N, 4, 1>(row, count);
      case 5: return row_of_lanes<N, 5, 1>(row, count);
      case 7: return row_of_lanes<N, 7, 1>(row, count);
      default: return row_of_lanes<N, 0, 1>(row, count);
    }
  }
  switch (row.taps_w) {
    case 3: return row_of_lanes<N, 3, 2>(row, count);
    case 5: return row_of_lanes<N, 5, 2>(row, count);
    case 7: return row_of_lanes<N, 7, 2>(row, count);
    default: return row_of_lanes<N, 0, 2>(row, count);
  }
#endif
}

template <class E>
INLINE Row<E> from_channel(Row<E> row, int64_t channel) {
  row.x += channel, row.w += channel, row.y += channel;
  if (row.index != nullptr) row.index += channel;
  return row;
}

// Channels in whole registers first, what is left in smaller ones. The small ones do without code for each kernel.
template <class E>
TARGET void convolve_row(const Row<E>& row, int64_t stride, int64_t count) {
  int64_t done = count / WIDEST * WIDEST;
  if (done > 0) row_of_kernel<WIDEST>(row, stride, done);
#if WIDEST > 8
  if (count - done >= 8) {
    row_of_kernel<8>(from_channel(row, done), stride, 8);
    done += 8;
  }
#endif
  if (WIDEST > 4 && count - done >= 4) {
    const Row<E> rest = from_channel(row, done);
    stride == 1 ? row_of_lanes<4, 0, 1>(rest, 4) : row_of_lanes<4, 0, 2>(rest, 4);
    done += 4;
  }
  if (done < count) {
    const Row<E> rest = from_channel(row, done);
    stride == 1 ? row_of_lanes<1, 0, 1>(rest, count - done) : row_of_lanes<1, 0, 2>(rest, count - done);
  }
}


// The taps of `count` channels from `c0` on, as float32 [head][tap][count], times the scale of sample `n`.
template <class E>
TARGET void pack_weights(const Problem<E>& p, int64_t n, int64_t c0, int64_t count, float* to) {
  const int64_t kk = p.full_kernel * p.full_kernel;
  for (int64_t head = 0; head < p.heads; ++head) {
    const float* scale = p.scale == nullptr ? nullptr : p.scale + (n * p.all_heads + head) * p.channels + c0;
    for (int64_t k = 0; k < kk; ++k) {
      const E* from = p.w + (head * kk + k) * p.channels + c0;
      for (int64_t c = 0; c < count; ++c, ++to) {
        const float value = Lanes<1>::load(from + c);
        *to = scale == nullptr ? value : value * scale[c];
      }
    }
  }
}

// Where a task finds its weights: in place where they are float32 and not scaled, else packed into `room`.
struct Weights {
  const float* first;  // the first tap of the window in use, head 0
  int64_t row, col, head;
};

template <class E>
INLINE Weights weights_of(const Problem<E>& p, int64_t n, int64_t c0, int64_t count, float* room) {
  const int64_t margin = (p.full_kernel - p.kernel) / 2;
  const bool in_place = p.packed_floats(count) == 0;
  const int64_t col = in_place ? p.channels : count, row = p.full_kernel * col;
  if (!in_place) pack_weights(p, n, c0, count, room);
  const float* first = in_place ? reinterpret_cast<const float*>(p.w) + c0 : room;
  return {first + margin * (row + col), row, col, p.full_kernel * row};
}

// Zeros in channels [from, width) of `pixels` consecutive pixels.
template <class T>
INLINE void clear(T* out, int64_t pixels, int64_t channels, int64_t from, int64_t width) {
  if (from >= width) return;
  for (int64_t i = 0; i < pixels; ++i) std::memset(out + i * channels + from, 0, sizeof(T) * (width - from));
}

// The output row `u` of sample `n`, all heads; the caller says where it goes.
template <class E>
INLINE Row<E> output_row(const Problem<E>& p, const Weights& w, int64_t n, int64_t c0, int64_t u) {
  const int64_t start = u * p.stride - p.pad_h;
  const int64_t above = std::max<int64_t>(0, -start), below = std::max(above, std::min(p.kernel, p.in_h - start));
  Row<E> row;
  row.x_col = p.channels, row.x_row = p.in_w * p.channels, row.x_head = 0;
  row.x = p.x + c0 + (n * p.in_h + start + above) * row.x_row - p.pad_w * row.x_col;
  row.w = w.first + above * w.row, row.w_row = w.row, row.w_col = w.col, row.w_head = w.head;
  row.first_col = -p.pad_w, row.in_w = p.in_w, row.taps_h = below - above, row.taps_w = p.kernel;
  row.outputs = p.out_w, row.heads = p.heads, row.maximum = false, row.index = nullptr;
  return row;
}

template <class E>
TARGET void forward_task(const Problem<E>& p, int64_t task) {
  const int64_t band = task % p.bands, strip = task / p.bands % p.strips, n = task / p.bands / p.strips;
  const int64_t c0 = band * p.band, count = p.active_from(c0), width = p.channels_from(c0);
  const int64_t first = strip * p.strip_rows, rows = std::min(p.strip_rows, p.out_h - first);
  const int64_t line = p.out_w * p.channels, place = (n * p.out_h + first) * line + c0;
  clear(p.y + place, rows * p.out_w, p.channels, count, width);
  if (p.index_out != nullptr) clear(p.index_out + place, rows * p.out_w, p.channels, count, width);
  if (count == 0) return;
  const Weights w = weights_of(p, n, c0, count, p.room(p.packed_floats(count)));
  for (int64_t r = 0; r < rows; ++r) {
    Row<E> row = output_row(p, w, n, c0, first + r);
    row.y = p.y + place + r * line, row.y_col = p.channels;
    row.index = p.index_out == nullptr ? nullptr : p.index_out + place + r * line;
    row.maximum = p.heads > 1 || p.index_out != nullptr;
    convolve_row(row, p.stride, count);
  }
}

// to[c] = g[c] where `head` had the largest value, else 0, for `count` channels.
template <class E, class T>
INLINE void mask_pixel(const E* g, const uint8_t* index, int32_t head, int64_t count, T* to) {
  int64_t c = 0;
  for (; c + WIDEST <= count; c += WIDEST) {
    using L = Lanes<WIDEST>;
    L::store(to + c, L::choose(L::load_byte(index + c) == L::all(head), L::load(g + c), typename L::V{}));
  }
  for (; c < count; ++c) Lanes<1>::store(to + c, index[c] == head ? Lanes<1>::load(g + c) : 0.0f);
}

// With h + pad_h = stride * q + phase, input row h receives tap (phase + stride * m) from output row q - m.
template <class E>
TARGET void input_gradient_task(const Problem<E>& p, int64_t task) {
  const int64_t band = task % p.bands, strip = task / p.bands % p.strips, n = task / p.bands / p.strips;
  const int64_t c0 = band * p.band, count = p.active_from(c0), s = p.stride;
  const int64_t first = strip * p.strip_rows, rows = std::min(p.strip_rows, p.in_h - first);
  E* dx = p.dx + ((n * p.in_h + first) * p.in_w) * p.channels + c0;
  clear(dx, rows * p.in_w, p.channels, count, p.channels_from(c0));
  if (count == 0) return;
  // the rows of the output's gradient that this strip needs
  const int64_t reach = (p.kernel + s - 1) / s - 1;
  const int64_t g_first = std::min(p.out_h, std::max<int64_t>(0, (first + p.pad_h) / s - reach));
  const int64_t g_last = std::max(g_first, std::min(p.out_h, (first + rows - 1 + p.pad_h) / s + 1));
  const E* g = p.g + n * p.out_h * p.out_w * p.channels + c0;
  int64_t g_col = p.channels, g_row = p.out_w * p.channels, g_head = 0;
  float* room = p.room(p.packed_floats(count) + p.masked_floats(count, g_last - g_first));
  const Weights w = weights_of(p, n, c0, count, room);
  if (p.index != nullptr) {
    E* masked = reinterpret_cast<E*>(room + p.packed_floats(count));
    const uint8_t* index = p.index + n * p.out_h * p.out_w * p.channels + c0;
    E* to = masked;
    for (int64_t head = 0; head < p.heads; ++head)
      for (int64_t pixel = g_first * p.out_w; pixel < g_last * p.out_w; ++pixel, to += count)
        mask_pixel(g + pixel * p.channels, index + pixel * p.channels, static_cast<int32_t>(head), count, to);
    g_col = count, g_row = p.out_w * count, g_head = (g_last - g_first) * g_row;
    g = masked - g_first * g_row;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t phase_h = (first + r + p.pad_h) % s, q_h = (first + r + p.pad_h) / s;
    const int64_t taps_h = p.kernel > phase_h ? (p.kernel - phase_h + s - 1) / s : 0;
    const int64_t start = q_h - (taps_h - 1), above = std::max<int64_t>(0, -start);
    const int64_t below = std::max(above, std::min(taps_h, p.out_h - start));
    for (int64_t column = 0; column < std::min(s, p.in_w); ++column) {
      const int64_t phase_w = (column + p.pad_w) % s, q_w = (column + p.pad_w) / s;
      const int64_t taps_w = p.kernel > phase_w ? (p.kernel - phase_w + s - 1) / s : 0;
      Row<E> row;
      row.x_col = g_col, row.x_row = g_row, row.x_head = g_head;
      row.first_col = q_w - (taps_w - 1), row.in_w = p.out_w;
      row.x = g + (start + above) * g_row + row.first_col * g_col;
      row.w = w.first + (phase_h + s * (taps_h - 1 - above)) * w.row + (phase_w + s * (taps_w - 1)) * w.col;
      row.w_row = -s * w.row, row.w_col = -s * w.col, row.w_head = w.head;
      row.taps_h = below - above, row.taps_w = taps_w;
      row.y = dx + (r * p.in_w + column) * p.channels, row.y_col = s * p.channels;
      row.outputs = (p.in_w - column + s - 1) / s, row.heads = p.heads;
      row.maximum = false, row.index = nullptr;
      convolve_row(row, 1, count);
    }
  }
}

// Sums over pixels of g[u][v] * x[u * stride + a][v * stride + b], for R rows a (all inside the image) and K columns b.
template <int N, int K, int R, bool Masked, class E>
TARGET void weight_rows(const Sums<E>& part, int64_t rows, float* sum) {
  using L = Lanes<N>;
  using V = typename L::V;
  V acc[R][K];
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < K; ++b) acc[a][b] = V{};
  const int64_t s = part.stride, room = part.in_w - K - part.first_col;
  const int64_t low = std::min(part.out_w, (std::max<int64_t>(0, -part.first_col) + s - 1) / s);
  const int64_t high = std::max(low, room < 0 ? 0 : std::min(part.out_w, room / s + 1));
  for (int64_t u = 0; u < rows; ++u) {
    const E* line = part.x + u * s * part.x_row;
    const E* at = part.g + u * part.g_row;
    const uint8_t* from = Masked ? part.index + u * part.g_row : nullptr;
    for (int64_t v = 0; v < part.out_w; ++v) {
      if (v == low) {
        for (; v < high; ++v) {
          V g = L::load(at + v * part.g_col);
          if (Masked) g = L::choose(L::load_byte(from + v * part.g_col) == L::all(part.head), g, V{});
          const E* x = line + v * s * part.x_col;
          // As in `tile`: the next rows of both images.
          __builtin_prefetch(at + part.g_row + v * part.g_col, 0, 2);
          __builtin_prefetch(x + (R - 1 + s) * part.x_row, 0, 2);
#pragma GCC unroll 8
          for (int a = 0; a < R; ++a)
#pragma GCC unroll 8
            for (int b = 0; b < K; ++b) acc[a][b] += g * L::load(x + a * part.x_row + b * part.x_col);
        }
        if (v == part.out_w) break;
      }
      V g = L::load(at + v * part.g_col);
      if (Masked) g = L::choose(L::load_byte(from + v * part.g_col) == L::all(part.head), g, V{});
      const E* x = line + v * s * part.x_col;
      const int64_t col = part.first_col + v * s;
#pragma GCC unroll 8
      for (int b = 0; b < K; ++b) {
        if (static_cast<uint64_t>(col + b) >= static_cast<uint64_t>(part.in_w)) continue;
#pragma GCC unroll 8
        for (int a = 0; a < R; ++a) acc[a][b] += g * L::load(x + a * part.x_row + b * part.x_col);
      }
    }
  }
  for (int a = 0; a < R; ++a)
    for (int b = 0; b < K; ++b) {
      float* to = sum + (a * part.kernel + b) * kBlock;
      const V found = part.scale == nullptr ? acc[a][b] : acc[a][b] * L::load(part.scale);
      L::store(to, L::load(to) + found);
    }
}

// Rows [first, last) of outputs of one sample, kernel rows [a, a + R): whole where they are inside, else row by row.
template <int N, int K, int R, bool Masked, class E>
INLINE void weight_taps(const Sums<E>& whole, int64_t first, int64_t last, int64_t a, float* sum) {
  const int64_t s = whole.stride;
  const auto at = [&](int64_t u, int64_t a) {
    Sums<E> part = whole;
    part.x += (u * s + a) * whole.x_row, part.g += u * whole.g_row;
    if (Masked) part.index += u * whole.g_row;
    return part;
  };
  // output rows whose input rows a .. a + taps are all inside
  const auto low = [&](int64_t a) {
    const int64_t needed = -(whole.first_row + a);
    return std::min(last, std::max(first, needed <= 0 ? 0 : (needed + s - 1) / s));
  };
  const auto high = [&](int64_t a, int64_t from) {
    const int64_t room = whole.in_h - 1 - whole.first_row - a;
    return std::max(from, std::min(last, room < 0 ? 0 : room / s + 1));
  };
  const int64_t begin = low(a), end = high(a + R - 1, begin);
  if (end > begin) weight_rows<N, K, R, Masked>(at(begin, a), end - begin, sum + a * whole.kernel * kBlock);
  if (R == 1) return;
  for (int64_t each = a; each < a + R; ++each) {
    const int64_t lowest = low(each), highest = high(each, lowest);
    const int64_t early = std::min(begin, highest), late = std::max(end, lowest);
    float* to = sum + each * whole.kernel * kBlock;
    if (end == begin) {
      if (highest > lowest) weight_rows<N, K, 1, Masked>(at(lowest, each), highest - lowest, to);
      continue;
    }
    if (early > lowest) weight_rows<N, K, 1, Masked>(at(lowest, each), early - lowest, to);
    if (highest > late) weight_rows<N, K, 1, Masked>(at(late, each), highest - late, to);
  }
}

// `R` rows of taps at a time, so that the sums fill the registers.
template <int N, int K, int R, bool Masked, class E>
INLINE void weight_kernel(const Sums<E>& whole, int64_t first, int64_t last, float* sum) {
  int64_t a = 0;
  for (; a + R <= K; a += R) weight_taps<N, K, R, Masked>(whole, first, last, a, sum);
  for (; a < K; ++a) weight_taps<N, K, 1, Masked>(whole, first, last, a, sum);
}

template <int N, bool Masked, class E>
TARGET void weight_lanes(const Sums<E>& whole, int64_t first, int64_t last, float* sum) {
  constexpr bool many = WIDEST != 8;  // 32 registers
  if (SPECIAL && (N >= 8 || N == WIDEST)) {
    switch (whole.kernel) {
      case 3: return weight_kernel<N, 3, 3, Masked>(whole, first, last, sum);
      case 5: return weight_kernel<N, 5, many ? 5 : 2, Masked>(whole, first, last, sum);
      case 7: return weight_kernel<N, 7, many ? 3 : 1, Masked>(whole, first, last, sum);
      default: break;
    }
  }
  for (int64_t b = 0; b < whole.kernel; ++b) {
    Sums<E> column = whole;
    column.x += b * whole.x_col, column.first_col += b;
    for (int64_t a = 0; a < whole.kernel; ++a) weight_taps<N, 1, 1, Masked>(column, first, last, a, sum + b * kBlock);
  }
}

template <int N, class E>
INLINE void weight_any(const Sums<E>& whole, int64_t first, int64_t last, float* sum) {
  whole.index == nullptr ? weight_lanes<N, false>(whole, first, last, sum) : weight_lanes<N, true>(whole, first, last, sum);
}

template <class E>
TARGET void weight_sums(const Sums<E>& whole, int64_t count, float* sum) {
  for (int64_t first = 0; first < whole.out_h; first += whole.strip_rows) {
    const int64_t last = std::min(whole.out_h, first + whole.strip_rows);
    Sums<E> part = whole;
    int64_t done = 0;
    const auto next = [&](int64_t lanes) {
      part.x += lanes, part.g += lanes, done += lanes;
      if (part.index != nullptr) part.index += lanes;
      if (part.scale != nullptr) part.scale += lanes;
    };
#if WIDEST > 8
    for (; count - done >= 16; next(16)) weight_any<16>(part, first, last, sum + done);
#endif
#if WIDEST > 4
    for (; count - done >= 8; next(8)) weight_any<8>(part, first, last, sum + done);
#endif
    for (; count - done >= 4; next(4)) weight_any<4>(part, first, last, sum + done);
    for (; count - done >= 1; next(1)) weight_any<1>(part, first, last, sum + done);
  }
}

template <class E>
TARGET void weight_gradient_task(const Problem<E>& p, int64_t task) {
  const int64_t c0 = task % p.bands * p.band, group = task / p.bands;
  const int64_t count = p.active_from(c0), kk = p.kernel * p.kernel;
  const int64_t full = p.full_kernel * p.full_kernel, margin = (p.full_kernel - p.kernel) / 2;
  float* out = p.partial + group * p.all_heads * full * p.channels + c0;
  clear(out, p.all_heads * full, p.channels, 0, p.channels_from(c0));
  if (count == 0) return;
  float* sum = p.room(p.heads * kk * kBlock);
  std::memset(sum, 0, sizeof(float) * p.heads * kk * kBlock);
  for (int64_t n = group * p.batch / p.groups; n < (group + 1) * p.batch / p.groups; ++n) {
    const int64_t x_row = p.in_w * p.channels, place = n * p.out_h * p.out_w * p.channels + c0;
    for (int64_t head = 0; head < p.heads; ++head) {
      Sums<E> whole;
      whole.x = p.x + (n * p.in_h - p.pad_h) * x_row - p.pad_w * p.channels + c0;
      whole.x_row = x_row, whole.x_col = p.channels;
      whole.g = p.g + place, whole.g_row = p.out_w * p.channels, whole.g_col = p.channels;
      whole.index = p.index == nullptr ? nullptr : p.index + place, whole.head = static_cast<int32_t>(head);
      whole.scale = p.scale == nullptr ? nullptr : p.scale + (n * p.all_heads + head) * p.channels + c0;
      whole.first_row = -p.pad_h, whole.first_col = -p.pad_w;
      whole.in_h = p.in_h, whole.in_w = p.in_w, whole.out_h = p.out_h, whole.out_w = p.out_w;
      whole.kernel = p.kernel, whole.stride = p.stride, whole.strip_rows = p.strip_rows;
      weight_sums(whole, count, sum + head * kk * kBlock);
    }
  }
  for (int64_t head = 0; head < p.heads; ++head)
    for (int64_t a = 0; a < p.kernel; ++a)
      for (int64_t b = 0; b < p.kernel; ++b) {
        const int64_t tap = head * full + (a + margin) * p.full_kernel + b + margin;
        std::memcpy(out + tap * p.channels, sum + (head * kk + a * p.kernel + b) * kBlock, sizeof(float) * count);
      }
}

// Mean and variance over pixels of every head's map, which is computed row by row and not kept.
template <class E>
TARGET void moments_task(const Problem<E>& p, int64_t task) {
  const int64_t c0 = task % p.bands * p.band, n = task / p.bands;
  const int64_t count = p.active_from(c0);
  const int64_t pixels = p.out_h * p.out_w;
  for (int64_t head = 0; head < p.all_heads; ++head) {
    const int64_t place = (n * p.all_heads + head) * p.channels + c0;
    const int64_t from = head < p.heads ? count : 0;
    clear(p.mean + place, 1, 0, from, p.channels_from(c0));
    clear(p.variance + place, 1, 0, from, p.channels_from(c0));
  }
  if (count == 0) return;
  float* room = p.room(p.packed_floats(count) + 3 * count + p.out_w * count);
  const Weights w = weights_of(p, n, c0, count, room);
  float* first = room + p.packed_floats(count);
  float* sum = first + count;
  float* square = sum + count;
  E* line = reinterpret_cast<E*>(square + count);
  for (int64_t head = 0; head < p.heads; ++head) {
    std::memset(sum, 0, sizeof(float) * 2 * count);
    for (int64_t u = 0; u < p.out_h; ++u) {
      Row<E> row = output_row(p, w, n, c0, u);
      row.w += head * w.head, row.heads = 1, row.y = line, row.y_col = count;
      convolve_row(row, p.stride, count);
      // Sums are taken about the first value: those of squares alone lose all digits under a large mean.
      if (u == 0)
        for (int64_t c = 0; c < count; ++c) first[c] = Lanes<1>::load(line + c);
      for (int64_t v = 0; v < p.out_w; ++v)
        for (int64_t c = 0; c < count; ++c) {
          const float from = Lanes<1>::load(line + v * count + c) - first[c];
          sum[c] += from;
          square[c] += from * from;
        }
    }
    const int64_t place = (n * p.all_heads + head) * p.channels + c0;
    for (int64_t c = 0; c < count; ++c) {
      const float mean = sum[c] / static_cast<float>(pixels);
      p.mean[place + c] = first[c] + mean;
      p.variance[place + c] = std::max(0.0f, square[c] / static_cast<float>(pixels) - mean * mean);
    }
  }
}

// Sums over pixels of every head's map times the gradient of the pixels where this head was the largest.
template <class E>
TARGET void scale_gradient_task(const Problem<E>& p, int64_t task) {
  const int64_t c0 = task % p.bands * p.band, n = task / p.bands;
  const int64_t count = p.active_from(c0);
  for (int64_t head = 0; head < p.all_heads; ++head)
    std::memset(p.dscale + (n * p.all_heads + head) * p.channels + c0, 0, sizeof(float) * p.channels_from(c0));
  if (count == 0) return;
  float* room = p.room(p.packed_floats(count) + p.out_w * count);
  const Weights w = weights_of(p, n, c0, count, room);
  E* line = reinterpret_cast<E*>(room + p.packed_floats(count));
  for (int64_t head = 0; head < p.heads; ++head) {
    float* sum = p.dscale + (n * p.all_heads + head) * p.channels + c0;
    for (int64_t u = 0; u < p.out_h; ++u) {
      Row<E> row = output_row(p, w, n, c0, u);
      row.w += head * w.head, row.heads = 1, row.y = line, row.y_col = count;
      convolve_row(row, p.stride, count);
      const int64_t place = (n * p.out_h + u) * p.out_w * p.channels + c0;
      for (int64_t v = 0; v < p.out_w; ++v) {
        const E* g = p.g + place + v * p.channels;
        const uint8_t* index = p.index + place + v * p.channels;
        for (int64_t c = 0; c < count; ++c)
          sum[c] += index[c] == head ? Lanes<1>::load(g + c) * Lanes<1>::load(line + v * count + c) : 0.0f;
      }
    }
  }
}

}  // namespace NAMESPACE

#define TASKS(E)                                                                                                       \
  {NAMESPACE::forward_task<E>, NAMESPACE::input_gradient_task<E>, NAMESPACE::weight_gradient_task<E>,                  \
   NAMESPACE::moments_task<E>, NAMESPACE::scale_gradient_task<E>}
#define NAME_OF(set) TEXT_OF(set)
#define TEXT_OF(set) #set
extern const Set SET{NAME_OF(NAMESPACE), TASKS(float), TASKS(bf16),
                     {NAMESPACE::moments_of_rows, NAMESPACE::normalise_rows, NAMESPACE::sums_of_rows,
                      NAMESPACE::gradient_of_rows, NAMESPACE::join_moments, NAMESPACE::join_sums},
                     {NAMESPACE::attention_factors, NAMESPACE::attention_scale, NAMESPACE::attention_gradient,
                      NAMESPACE::attention_weights, NAMESPACE::head_factors, NAMESPACE::head_gradient},
                     {{NAMESPACE::extremes_of_piece<float>, NAMESPACE::round_piece<float>},
                      {NAMESPACE::extremes_of_piece<bf16>, NAMESPACE::round_piece<bf16>},
                      NAMESPACE::round_weights}};

}  // namespace flynas
