// ignn::AdaPNGather on CUDA: one neighbor of every query, mapped to the features, renormalised (AdaPN) and folded.
//
// Floor, per pixel of the features (C channels of b bytes, graph scale s, one neighbor):
//   reads   C b (features), 2 C / s^2 (the keys' statistics), 1 (index, int32 for a quarter of a query)
//   writes  s^2 C b
//   FLOPs   about C (4.5 s^2 + 18): an affine map of 2.25 s^2 covering patch pixels, the queries' statistics
// C = 256, s = 2, fp16: 2689 bytes; 9,216 FLOPs, nothing beside them. What the kernel moves beyond that floor: the
// features once more (statistics of the queries) and, from L2 for the most part, the statistics of neighbors that
// several queries share and 2.25 s^2 C b of the features gathered.
#pragma once

#include "../interface.h"

#ifdef __cplusplus
extern "C" {
#endif

// NULL if the launcher takes these sizes, else what is wrong with them.
IGNN_EXPORT const char* ignn_adapn_gather_refusal(const IgnnFeatures* sizes);

// Queues the operator on `stream` (a cudaStream_t). Pointers are device pointers, 16-byte aligned:
//   features                 (N, C, H, W)
//   key_mean, key_std  float (N, n1, n2, C), of ignn_key_statistics for the same sizes
//   index                    int32 (N, m1, m2), m1 = H / 2, m2 = W / 2: one neighbor of every query, flat in the key
//                            grid; an index outside the key grid is taken for the nearest one inside
//   output                   (N, C, scale * H, scale * W)
// Returns a cudaError_t; cudaErrorInvalidValue (1) where ignn_adapn_gather_refusal is not NULL.
IGNN_EXPORT int ignn_adapn_gather(const IgnnFeatures* sizes, const void* features, const float* key_mean,
                                  const float* key_std, const int* index, void* output, void* stream);

#ifdef __cplusplus
}
#endif
