// The kernel for every machine: SSE2, NEON, or whatever the compiler takes for granted.

#if defined(__aarch64__)
#define NAMESPACE neon  // all 64-bit ARM processors have it, so this is the only kernel there
#else
#define NAMESPACE baseline
#endif
#define SET kBaseline
#define TARGET
#define WIDEST 4
#if defined(__x86_64__)
#define SPECIAL 0  // it serves only machines of before 2013
#else
#define SPECIAL 1
#endif
#include "depthwise_tasks.h"
