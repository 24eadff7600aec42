// What the launchers' C interfaces share.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define IGNN_EXPORT __attribute__((visibility("default")))

enum { IGNN_FLOAT32 = 0, IGNN_FLOAT16 = 1 };
// Order of a map's dimensions in memory: NCHW, or NHWC (channels a multiple of 8, 16-byte aligned).
enum { IGNN_LINEAR = 0, IGNN_CHANNELS_LAST = 1 };

#ifdef __cplusplus
}
#endif
