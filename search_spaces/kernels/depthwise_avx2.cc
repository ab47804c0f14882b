// The kernel for machines with AVX2.

#if defined(__x86_64__)
#define NAMESPACE avx2
#define SET kAvx2
#define TARGET __attribute__((target("avx2,fma")))
#define WIDEST 8
#define SPECIAL 1
#include "depthwise_tasks.h"
#endif
