// Numbers in the registers of one instruction set. Included by what computes for that set, inside no namespace; NAMESPACE,
// TARGET and WIDEST are those of depthwise_tasks.h.

#pragma once

#include <cstdint>
#include <cstring>

#include "depthwise.h"

#define INLINE inline __attribute__((always_inline)) TARGET

namespace flynas {
namespace NAMESPACE {

// `N` numbers in one register; vector types are an extension of GCC and Clang. Spelt out for each N, because GCC 12 does
// not convert between vectors whose types depend on a template's parameter.
template <int N>
struct Lanes;
#define LANES(N)                                                                                                      \
template <>                                                                                                           \
struct Lanes<N> {                                                                                                     \
  typedef float V __attribute__((vector_size(N * 4)));                                                                \
  typedef int32_t I __attribute__((vector_size(N * 4)));                                                              \
  typedef uint32_t U __attribute__((vector_size(N * 4)));                                                             \
  typedef uint16_t Half __attribute__((vector_size(N * 2)));                                                          \
  typedef uint8_t Byte __attribute__((vector_size(N)));                                                               \
  static INLINE V load(const float* from) {                                                                           \
    V v;                                                                                                              \
    std::memcpy(&v, from, sizeof(V));                                                                                 \
    return v;                                                                                                         \
  }                                                                                                                   \
  static INLINE V load(const bf16* from) {                                                                            \
    Half half;                                                                                                        \
    std::memcpy(&half, from, sizeof(Half));                                                                           \
    return (V)(__builtin_convertvector(half, U) << 16);                                                               \
  }                                                                                                                   \
  static INLINE void store(float* to, V v) { std::memcpy(to, &v, sizeof(V)); }                                        \
  static INLINE void store(bf16* to, V v) {                                                                           \
    const U bits = (U)v, quiet = U{} + 0x7fc0u;                                                                       \
    const U nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* ties to even */                                  \
    const Half half = __builtin_convertvector((v == v ? nearest : quiet), Half);                                      \
    std::memcpy(to, &half, sizeof(Half));                                                                             \
  }                                                                                                                   \
  static INLINE void store_byte(uint8_t* to, I v) {                                                                   \
    const Byte byte = __builtin_convertvector(v, Byte);                                                               \
    std::memcpy(to, &byte, sizeof(Byte));                                                                             \
  }                                                                                                                   \
  static INLINE I load_byte(const uint8_t* from) {                                                                    \
    Byte byte;                                                                                                        \
    std::memcpy(&byte, from, sizeof(Byte));                                                                           \
    return __builtin_convertvector(byte, I);                                                                          \
  }                                                                                                                   \
  /* Whether `a` is the larger one; what is not a number wins. */                                                     \
  static INLINE I exceeds(V a, V b) { return (a > b) | (a != a); }                                                    \
  static INLINE V choose(I mask, V a, V b) { return mask ? a : b; }                                                   \
  static INLINE I choose(I mask, I a, I b) { return mask ? a : b; }                                                   \
  static INLINE I all(int32_t value) { return I{} + value; }                                                          \
};
LANES(4)
#if WIDEST >= 8
LANES(8)
#endif
#if WIDEST >= 16
LANES(16)
#endif
#undef LANES

template <>
struct Lanes<1> {
  typedef float V;
  typedef int32_t I;
  static INLINE V load(const float* from) { return *from; }
  static INLINE V load(const bf16* from) {
    const uint32_t bits = static_cast<uint32_t>(from->bits) << 16;
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
  }
  static INLINE void store(float* to, V v) { *to = v; }
  static INLINE void store(bf16* to, V v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits += 0x7fff + ((bits >> 16) & 1);
    to->bits = v == v ? static_cast<uint16_t>(bits >> 16) : 0x7fc0;
  }
  static INLINE I exceeds(V a, V b) { return a > b || a != a; }
  static INLINE V choose(I mask, V a, V b) { return mask ? a : b; }
  static INLINE I choose(I mask, I a, I b) { return mask ? a : b; }
  static INLINE I all(int32_t value) { return value; }
  static INLINE void store_byte(uint8_t* to, I v) { *to = static_cast<uint8_t>(v); }
  static INLINE I load_byte(const uint8_t* from) { return *from; }
};

}  // namespace NAMESPACE
}  // namespace flynas
