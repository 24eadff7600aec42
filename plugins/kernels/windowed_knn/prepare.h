// Kernels that run before the search: the keys' norms, and the copy of NCHW maps to NHWC.
#pragma once

#include "tile.h"

namespace ignn::knn {

constexpr int kThreads = 128;  // per block of these kernels

// Write the squared norm of every key patch; one warp computes one patch.
template <typename T>
__global__ void __launch_bounds__(kThreads) key_norm(const Problem problem, float* norm) {
    const int channels = problem.sizes.channels;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int patch = static_cast<int>(blockIdx.x) * (kThreads / 32) + static_cast<int>(threadIdx.x) / 32;
    const int patches = problem.sizes.batch * problem.n1 * problem.n2;
    const int n = min_of(patch, patches - 1) / (problem.n1 * problem.n2);
    const int y0 = kStride * (patch / problem.n2 % problem.n1);
    const int x0 = kStride * (patch % problem.n2);
    const T* key =
        static_cast<const T*>(problem.key) + static_cast<size_t>(n) * problem.key_height * problem.key_width * channels;
    const int vectors = channels / Vector<T>::kSize;
    float total = 0.0F;
    for (int item = lane; item < kPatchPixels * vectors; item += 32) {
        const int y = y0 + item / vectors / kPatch;
        const int x = x0 + item / vectors % kPatch;
        if (y < problem.key_height && x < problem.key_width) {
            float values[Vector<T>::kSize];
            Vector<T>::load(
                key + (static_cast<size_t>(y) * problem.key_width + x) * channels + item % vectors * Vector<T>::kSize,
                values);
#pragma unroll
            for (int e = 0; e < Vector<T>::kSize; ++e) {
                total = fmaf(values[e], values[e], total);
            }
        }
    }
    for (int other = 16; other > 0; other /= 2) {
        total += __shfl_xor_sync(0xffffffffU, total, other);
    }
    if (lane == 0 && patch < patches) {
        norm[patch] = total;
    }
}

// Copy a map from NCHW to NHWC. A block copies 32 channels of 32 pixels.
constexpr int kPackTile = 32;
template <typename T>
__global__ void __launch_bounds__(kThreads) pack(const T* source, T* target, int channels, int pixels) {
    IGNN_DYNAMIC_SHARED(memory);
    T* tile = reinterpret_cast<T*>(memory);
    const int lane = static_cast<int>(threadIdx.x) % kPackTile;
    const int pixel0 = static_cast<int>(blockIdx.x) * kPackTile;
    const int channel0 = static_cast<int>(blockIdx.y) * kPackTile;
    const size_t base = static_cast<size_t>(blockIdx.z) * channels * pixels;
    for (int row = static_cast<int>(threadIdx.x) / kPackTile; row < kPackTile; row += kThreads / kPackTile) {
        if (channel0 + row < channels && pixel0 + lane < pixels) {
            tile[row * (kPackTile + 1) + lane] =
                source[base + static_cast<size_t>(channel0 + row) * pixels + pixel0 + lane];
        }
    }
    __syncthreads();
    for (int row = static_cast<int>(threadIdx.x) / kPackTile; row < kPackTile; row += kThreads / kPackTile) {
        if (pixel0 + row < pixels && channel0 + lane < channels) {
            target[base + static_cast<size_t>(pixel0 + row) * channels + channel0 + lane] =
                tile[lane * (kPackTile + 1) + row];
        }
    }
}

}  // namespace ignn::knn
