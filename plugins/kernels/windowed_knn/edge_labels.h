// The edge labels: for each neighbor and channel, the sum of |query - key| over the patch.
#pragma once

#include "tile.h"

namespace ignn::knn {

// Set `label` to the labels of one vector of channels, between query (row, column) of the tile and key patch
// `neighbor`.
template <typename T, int kChunk>
__device__ __forceinline__ void edge_label(const Shared<T, kChunk>& shared, const Problem& problem,
                                           const Block<T>& block, int row, int column, int neighbor, int vector,
                                           int channel, float (&label)[Vector<T>::kSize]) {
    using S = Shared<T, kChunk>;
    const int key_y = kStride * (neighbor / problem.n2);
    const int key_x = kStride * (neighbor % problem.n2);
#pragma unroll
    for (int patch_pixel = 0; patch_pixel < kPatchPixels; ++patch_pixel) {
        const int y = patch_pixel / kPatch;
        const int x = patch_pixel % kPatch;
        float a[Vector<T>::kSize];
        float b[Vector<T>::kSize] = {};
        Vector<T>::load(
            shared.query + (kStride * row + y) * S::kQueryRow + vector_of<S::kVectors>(kStride * column + x, vector),
            a);
        if (key_y + y < problem.key_height && key_x + x < problem.key_width) {
            const size_t pixel = static_cast<size_t>(key_y + y) * problem.key_width + key_x + x;
            Vector<T>::load(block.key + pixel * problem.sizes.channels + channel, b);
        }
#pragma unroll
        for (int e = 0; e < Vector<T>::kSize; ++e) {
            label[e] += fabsf(a[e] - b[e]);
        }
    }
}

// Write the labels of the block's queries. Half a warp takes a row of 16 queries, so that it writes 16 neighboring
// numbers of each channel. `staged` says that all channels of the queries are in shared memory.
template <typename T, int kChunk, int kMaps>
__device__ __forceinline__ void write_edge_labels(Shared<T, kChunk>& shared, const Problem& problem,
                                                  const Block<T>& block, const Warp<kMaps>& warp, bool staged) {
    const IgnnWindowedKnn& sizes = problem.sizes;
    const size_t plane = static_cast<size_t>(problem.m1) * problem.m2;
    T* edge = static_cast<T*>(problem.edge) + static_cast<size_t>(block.n) * sizes.k * sizes.channels * plane;
    constexpr int kPairs = Shared<T, kChunk>::kVectors / 2;
    constexpr int kWarps = kKeyRows * kQueryRows / kMaps;
    const int column = warp.lane % kQueryColumns;
    const int j = block.j0 + column;
    for (int channel0 = 0; channel0 < sizes.channels; channel0 += kChunk) {
        __syncthreads();
        if (!staged) {
            stage_queries(shared, problem, block, channel0);
            wait_for_copies();
            __syncthreads();
        }
        for (int item = warp.warp; item < sizes.k * kQueryRows * kPairs; item += kWarps) {
            const int vector = item % kPairs * 2 + warp.lane / kQueryColumns;
            const int row = item / kPairs % kQueryRows;
            const int r = item / kPairs / kQueryRows;
            const int channel = channel0 + vector * Vector<T>::kSize;
            const int i = block.i0 + row;
            if (i >= problem.m1 || j >= problem.m2 || channel >= sizes.channels) {
                continue;
            }
            float label[Vector<T>::kSize] = {};
            edge_label(shared, problem, block, row, column, shared.best.chosen[row * kQueryColumns + column][r], vector,
                       channel, label);
            T* target = edge + (static_cast<size_t>(r) * sizes.channels + channel) * plane +
                        static_cast<size_t>(i) * problem.m2 + j;
#pragma unroll
            for (int e = 0; e < Vector<T>::kSize; ++e) {
                target[static_cast<size_t>(e) * plane] = from_float<T>(label[e]);
            }
        }
    }
}

}  // namespace ignn::knn
