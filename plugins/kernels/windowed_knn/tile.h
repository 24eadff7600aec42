// A tile of queries and a pass of keys in shared memory, and the products of their patches.
#pragma once

#include "../device.h"
#include "windowed_knn.h"

namespace ignn {
namespace {

constexpr int kQueryRows = 4, kQueryColumns = 16, kQueries = kQueryRows * kQueryColumns;
constexpr int kKeyRows = 2, kKeyColumns = 40;
constexpr int kTiles = kKeyColumns / 8;

// Rows of 16 queries that a warp multiplies; one where the lists of neighbors are long, or registers would spill.
IGNN_HOST_DEVICE constexpr int rows_per_warp(int best) { return best > 8 ? 1 : 2; }
IGNN_HOST_DEVICE constexpr int threads_per_block(int best) { return 32 * kKeyRows * kQueryRows / rows_per_warp(best); }

struct Problem {
    IgnnWindowedKnn sizes;
    int m1, m2, n1, n2;         // query and key grid
    int key_height, key_width;  // of the key map
    int side1, side2;           // of the window
    const void *query, *key;    // NHWC
    const float* norm;          // (N, n1, n2): squared norm of each key patch
    int* index;
    void* edge;
};

// Pixels of a row of a map in shared memory, 16-byte vectors of channels. Patches stand two pixels apart: the
// exclusive or keeps the same channels of eight neighboring patches in different banks.
template <int kVectors>
__device__ int vector_of(int x, int vector) {
    static_assert(kVectors == 4 || kVectors == 8, "a 128-byte line holds two pixels or one");
    const int position = x * kVectors + vector;
    return (position & ~7) | ((position ^ (x >> 1)) & 7);
}

template <typename T, int kChunk>
struct Shared {
    static constexpr int kVectors = kChunk / Vector<T>::kSize;
    static constexpr int kQueryWidth = kStride * kQueryColumns + 1, kQueryHeight = kStride * kQueryRows + 1;
    static constexpr int kKeyWidth = kStride * kKeyColumns + 1, kKeyHeight = kStride * kKeyRows + 1;
    // Rows begin on a 128-byte line.
    static constexpr int kQueryRow = (kQueryWidth + 1) * kVectors, kKeyRow = (kKeyWidth + 1) * kVectors;
    uint4 query[kQueryHeight * kQueryRow];
    union {
        uint4 key[kKeyHeight * kKeyRow];  // row y of the map is row y % kKeyHeight here
        struct {
            float distance[kKeyRows][kQueries][16];
            int neighbor[kKeyRows][kQueries][16];
            int chosen[kQueries][16];
        } best;
    };
    float norm[kKeyRows][kKeyColumns];
};

template <typename T, int kVectors, int kWidth>
__device__ void stage_row(uint4* row, const T* map, int y, int x0, int height, int width, int channels, int channel0) {
    for (int item = static_cast<int>(threadIdx.x); item < kWidth * kVectors; item += static_cast<int>(blockDim.x)) {
        const int x = item / kVectors;
        const int vector = item % kVectors;
        const int channel = channel0 + vector * Vector<T>::kSize;
        const bool inside = y < height && x0 + x < width && channel < channels;
        const size_t offset = (static_cast<size_t>(y) * width + (x0 + x)) * channels + channel;
        copy_or_zero(row + vector_of<kVectors>(x, vector), map + (inside ? offset : 0), inside);
    }
}

// sum[map][tile] += products of the warp's queries (row query_row + map of the tile) and keys (pixel rows y to y + 2)
// over the channels in shared memory. Thread (g, t) of the warp, g = lane / 4 and t = lane % 4, holds query columns g
// and g + 8 and of each key columns 8 tile + 2 t and + 1, in that order.
template <int kChunk, int kMaps>
__device__ void accumulate(const Shared<__half, kChunk>& shared, int query_row, int y, float (&sum)[kMaps][kTiles][4]) {
    using S = Shared<__half, kChunk>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int query_x = kStride * (lane % 16);
    const int key_x = kStride * (lane % 8 + 8 * (lane / 16));
    const int last_x = kStride * (32 + lane % 8);
#pragma unroll 1
    for (int row = 0; row < kPatch; ++row) {
        const uint4* query = shared.query + (kStride * query_row + row) * S::kQueryRow;
        const uint4* key = shared.key + (y + row) % S::kKeyHeight * S::kKeyRow;
#pragma unroll
        for (int column = 0; column < kPatch; ++column) {
#pragma unroll
            for (int depth = 0; depth < kChunk / 16; ++depth) {
                const int query_vector = vector_of<S::kVectors>(query_x + column, 2 * depth + lane / 16);
                uint32_t a[kMaps][4];
#pragma unroll
                for (int map = 0; map < kMaps; ++map) {
                    load_matrices(a[map], query + kStride * map * S::kQueryRow + query_vector);
                }
                const int half = 2 * depth + lane / 8 % 2;
#pragma unroll
                for (int tile = 0; tile + 1 < kTiles; tile += 2) {
                    uint32_t b[4];
                    load_matrices(b, key + vector_of<S::kVectors>(key_x + kStride * 8 * tile + column, half));
#pragma unroll
                    for (int map = 0; map < kMaps; ++map) {
                        multiply_accumulate(sum[map][tile], a[map], b[0], b[1]);
                        multiply_accumulate(sum[map][tile + 1], a[map], b[2], b[3]);
                    }
                }
                uint32_t b[2];
                load_matrices(b, key + vector_of<S::kVectors>(last_x + column, half));
#pragma unroll
                for (int map = 0; map < kMaps; ++map) {
                    multiply_accumulate(sum[map][kTiles - 1], a[map], b[0], b[1]);
                }
            }
        }
    }
}

template <int kChunk, int kMaps>
__device__ void accumulate(const Shared<float, kChunk>& shared, int query_row, int y, float (&sum)[kMaps][kTiles][4]) {
    using S = Shared<float, kChunk>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int query_x = kStride * (lane / 4);
    const int key_x = kStride * 2 * (lane % 4);
#pragma unroll 1
    for (int patch_pixel = 0; patch_pixel < kPatchPixels; ++patch_pixel) {
        const int row = patch_pixel / kPatch;
        const int column = patch_pixel % kPatch;
        const uint4* query = shared.query + (kStride * query_row + row) * S::kQueryRow;
        const uint4* key = shared.key + (y + row) % S::kKeyHeight * S::kKeyRow;
#pragma unroll
        for (int vector = 0; vector < S::kVectors; ++vector) {
            float a[kMaps][2][4];
#pragma unroll
            for (int map = 0; map < kMaps; ++map) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int x = query_x + kStride * 8 * half + column;
                    Vector<float>::load(query + kStride * map * S::kQueryRow + vector_of<S::kVectors>(x, vector),
                                        a[map][half]);
                }
            }
#pragma unroll
            for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
                for (int next = 0; next < 2; ++next) {
                    float b[4];
                    const int x = key_x + kStride * (8 * tile + next) + column;
                    Vector<float>::load(key + vector_of<S::kVectors>(x, vector), b);
#pragma unroll
                    for (int map = 0; map < kMaps; ++map) {
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float& target = sum[map][tile][2 * half + next];
#pragma unroll
                            for (int channel = 0; channel < 4; ++channel) {
                                target = fmaf(a[map][half][channel], b[channel], target);
                            }
                        }
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace ignn
