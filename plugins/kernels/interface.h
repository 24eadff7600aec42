// What the launchers' C interfaces share.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define IGNN_EXPORT __attribute__((visibility("default")))

enum { IGNN_FLOAT32 = 0, IGNN_FLOAT16 = 1 };
// Order of a map's dimensions in memory: NCHW, or NHWC (channels a multiple of 8, 16-byte aligned).
enum { IGNN_LINEAR = 0, IGNN_CHANNELS_LAST = 1 };

// What KeyStatistics and AdaPNGather are called with.
typedef struct {
    int batch;
    int channels;       // C; a multiple of 8 in IGNN_CHANNELS_LAST
    int height, width;  // of the features
    int scale;          // 2 or 3
    float eps;          // added to the variances, positive
    int type;           // IGNN_FLOAT32 or IGNN_FLOAT16, of the features and of what is folded
    int layout;         // IGNN_LINEAR or IGNN_CHANNELS_LAST, of the same
} IgnnFeatures;

#ifdef __cplusplus
}
#endif
