// ignn::WindowedKnn on CUDA: the k nearest 3 x 3 key patches of every 3 x 3 query patch, within a window.
//
// Floor, per pixel of the query map (E channels of b bytes, window d x d, graph scale s):
//   reads   E b (query) + E b / s^2 (key)
//   writes  k (index, int32) + k E b / 4 (edge labels)
//   FLOPs   4.5 d^2 E (a quarter of a query against d^2 keys of 9 E numbers)
// E = 64, d = 30, s = 2, k = 5, fp16: 325 bytes and 259,200 FLOPs. What the kernel does beyond that floor: it computes
// the union of a tile's windows, 31 x 40 keys where 30 x 30 count (1.38 x), and reads each key again for every tile
// whose union holds it, from L2. NCHW maps are first copied to NHWC (their bytes once more, read and written).
#pragma once

#include <stddef.h>

#include "../interface.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int batch;
    int channels;       // E, a multiple of 8
    int height, width;  // of the query map; the key map is height / scale by width / scale
    int k;              // 1..16, and at most the keys in the window
    int window;         // largest side of the window in key patches
    int scale;          // 2 or 3
    int type;           // IGNN_FLOAT32 or IGNN_FLOAT16, of both maps and of `edge`
    int layout;         // IGNN_LINEAR or IGNN_CHANNELS_LAST, of both maps
} IgnnWindowedKnn;

// NULL if the launcher takes these sizes, else what is wrong with them.
IGNN_EXPORT const char* ignn_windowed_knn_refusal(const IgnnWindowedKnn* sizes);

// Bytes of workspace that ignn_windowed_knn needs.
IGNN_EXPORT size_t ignn_windowed_knn_workspace(const IgnnWindowedKnn* sizes);

// Queues the operator on `stream` (a cudaStream_t). Pointers are device pointers, 16-byte aligned:
//   query, key  maps as described by `sizes`
//   index       int32 (N, m1, m2, k), m1 = height / 2, m2 = width / 2: flat in the key grid, nearest first
//   edge        (N, k, E, m1, m2): sum over the patch of |query - key|
//   workspace   ignn_windowed_knn_workspace(sizes) bytes
// Returns a cudaError_t; cudaErrorInvalidValue (1) where ignn_windowed_knn_refusal is not NULL.
IGNN_EXPORT int ignn_windowed_knn(const IgnnWindowedKnn* sizes, const void* query, const void* key, int* index,
                                  void* edge, void* workspace, void* stream);

#ifdef __cplusplus
}
#endif
