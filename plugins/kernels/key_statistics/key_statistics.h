// ignn::KeyStatistics on CUDA: mean and deviation of every patch of the features that a key patch names.
//
// Floor, per pixel of the features (C channels of b bytes, graph scale s):
//   reads   C b (features)
//   writes  2 C / s^2 (two floats for each of the C channels of a patch, a patch for every 4 s^2 pixels)
//   FLOPs   about 9 C: four for each of the 2.25 patches that cover a pixel
// C = 256, s = 2, fp16: 640 bytes. A network calls it once, and AdaPNGather once for each neighbor.
#pragma once

#include "../interface.h"

#ifdef __cplusplus
extern "C" {
#endif

// NULL if the launcher takes these sizes, else what is wrong with them.
IGNN_EXPORT const char* ignn_key_statistics_refusal(const IgnnFeatures* sizes);

// Queues the operator on `stream` (a cudaStream_t). Pointers are device pointers, 16-byte aligned:
//   features           (N, C, H, W)
//   key_mean, key_std  float (N, n1, n2, C), n1 = H / scale / 2, n2 = W / scale / 2; key_std is
//                      sqrt(unbiased variance + eps)
// Returns a cudaError_t; cudaErrorInvalidValue (1) where ignn_key_statistics_refusal is not NULL.
IGNN_EXPORT int ignn_key_statistics(const IgnnFeatures* sizes, const void* features, float* key_mean, float* key_std,
                                    void* stream);

#ifdef __cplusplus
}
#endif
