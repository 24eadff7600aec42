// Pictures cross the bus as bytes: conversion between 8-bit RGB as pictures have it and the network's maps.
//
// Floor, per pixel: 3 bytes read and 12 written, or 12 read and 3 written; 3 FLOPs. Either kernel moves just that.
#pragma once

#include "../interface.h"

#ifdef __cplusplus
extern "C" {
#endif

// Both queue on `stream` (a cudaStream_t), take device pointers, and return a cudaError_t. `unit` is what white, 255,
// is divided by for the network: 1 for values 0..255, 255 for 0..1.

// pixels  uint8 (N, H, W, 3)
// map     float32 (N, 3, H, W): pixels / unit
IGNN_EXPORT int ignn_pixels_to_map(const unsigned char* pixels, float* map, int batch, int height, int width,
                                   float unit, void* stream);

// map     float32 (N, 3, H, W)
// pixels  uint8 (N, H, W, 3): map * unit, rounded to the nearest (halves to even), clamped to 0..255. One byte more
//         follows them: 1 if a value was NaN or infinite, else 0.
IGNN_EXPORT int ignn_map_to_pixels(const float* map, unsigned char* pixels, int batch, int height, int width,
                                   float unit, void* stream);

#ifdef __cplusplus
}
#endif
