// ignn::AdaPNGather on CUDA: one neighbor of every query, mapped to the features, renormalised (AdaPN) and folded.
//
// Floor, per pixel of the features (C channels of b bytes, graph scale s, one neighbor):
//   reads   C b (features) + 1 (index, int32 for a quarter of a query)
//   writes  s^2 C b
//   FLOPs   about C (4.5 s^2 + 20 + 7): an affine map of 2.25 s^2 covering patch pixels, two patch statistics
// C = 256, s = 2, fp16: 2561 bytes; 11,500 FLOPs, nothing beside them. What the kernels move beyond that floor: the
// features once more (statistics of the keys, then of the queries), 2 C / s^2 bytes of key statistics written and, from
// L2 for the most part, 2 C bytes of them and 2.25 s^2 C b of the features gathered.
#pragma once

#include <stddef.h>

#include "../interface.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int batch;
    int channels;       // C; a multiple of 8 in IGNN_CHANNELS_LAST
    int height, width;  // of the features
    int scale;          // 2 or 3
    float eps;          // added to the variances, positive
    int type;           // IGNN_FLOAT32 or IGNN_FLOAT16, of features and output
    int layout;         // IGNN_LINEAR or IGNN_CHANNELS_LAST, of features and output
} IgnnAdaPNGather;

// NULL if the launcher takes these sizes, else what is wrong with them.
IGNN_EXPORT const char* ignn_adapn_gather_refusal(const IgnnAdaPNGather* sizes);

// Bytes of workspace that ignn_adapn_gather needs: the key patches' statistics.
IGNN_EXPORT size_t ignn_adapn_gather_workspace(const IgnnAdaPNGather* sizes);

// Queues the operator on `stream` (a cudaStream_t). Pointers are device pointers, 16-byte aligned:
//   features    (N, C, H, W)
//   index       int32 (N, m1, m2), m1 = H / 2, m2 = W / 2: one neighbor of every query, flat in the key grid;
//               an index outside the key grid is taken for the nearest one inside
//   output      (N, C, scale * H, scale * W)
//   workspace   ignn_adapn_gather_workspace(sizes) bytes
// Returns a cudaError_t; cudaErrorInvalidValue (1) where ignn_adapn_gather_refusal is not NULL.
IGNN_EXPORT int ignn_adapn_gather(const IgnnAdaPNGather* sizes, const void* features, const int* index, void* output,
                                  void* workspace, void* stream);

#ifdef __cplusplus
}
#endif
