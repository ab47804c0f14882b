// The kernel for machines with AVX-512.

#if defined(__x86_64__)
#define NAMESPACE avx512
#define SET kAvx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define WIDEST 16
#define SPECIAL 1
#include "depthwise_tasks.h"
#endif
