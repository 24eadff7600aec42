// The products of the query and key patches in shared memory: on the tensor cores for halves and, where
// that is faster, for floats; else by FMA.
#pragma once

#include "tile.h"

namespace ignn::knn {

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

#ifdef IGNN_TF32
// fp32 to about 20 bits by 3xTF32: high * high + high * low + low * high, the small ones first. Of the 16 channels in
// shared memory thread (g, t) holds vector t; two instructions of depth 8 take its channels 0 and 1, then 2 and 3.
template <int kChunk, int kMaps>
__device__ void accumulate(const Shared<float, kChunk>& shared, int query_row, int y, float (&sum)[kMaps][kTiles][4]) {
    using S = Shared<float, kChunk>;
    static_assert(S::kVectors == 4, "a vector for each of the four threads of a group");
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int pixel = kStride * (lane / 4);
#pragma unroll 1
    for (int patch_pixel = 0; patch_pixel < kPatchPixels; ++patch_pixel) {
        const int row = patch_pixel / kPatch;
        const int column = patch_pixel % kPatch;
        const uint4* query = shared.query + (kStride * query_row + row) * S::kQueryRow;
        const uint4* key = shared.key + (y + row) % S::kKeyHeight * S::kKeyRow;
        float left[kMaps][2][4];
#pragma unroll
        for (int map = 0; map < kMaps; ++map) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int x = pixel + kStride * 8 * half + column;
                Vector<float>::load(query + kStride * map * S::kQueryRow + vector_of<S::kVectors>(x, lane % 4),
                                    left[map][half]);
            }
        }
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            float right[4];
            Vector<float>::load(key + vector_of<S::kVectors>(pixel + kStride * 8 * tile + column, lane % 4), right);
#pragma unroll
            for (int step = 0; step < 4; step += 2) {
                const Split b0(right[step]);
                const Split b1(right[step + 1]);
#pragma unroll
                for (int map = 0; map < kMaps; ++map) {
                    const Split a0(left[map][0][step]), a1(left[map][1][step]);
                    const Split a2(left[map][0][step + 1]), a3(left[map][1][step + 1]);
                    const uint32_t high[4] = {a0.high, a1.high, a2.high, a3.high};
                    const uint32_t low[4] = {a0.low, a1.low, a2.low, a3.low};
                    multiply_accumulate_tf32(sum[map][tile], low, b0.high, b1.high);
                    multiply_accumulate_tf32(sum[map][tile], high, b0.low, b1.low);
                    multiply_accumulate_tf32(sum[map][tile], high, b0.high, b1.high);
                }
            }
        }
    }
}
#else
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
#endif

}  // namespace ignn::knn
