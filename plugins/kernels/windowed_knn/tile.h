// A tile of queries and a pass of keys in shared memory: what a block works on, and how pixels get there.
#pragma once

#include "../device.h"
#include "windowed_knn.h"

namespace ignn::knn {

constexpr int kQueryRows = 4, kQueryColumns = 16, kQueries = kQueryRows * kQueryColumns;
constexpr int kKeyRows = 2, kKeyColumns = 40;
constexpr int kTiles = kKeyColumns / 8;

// Rows of 16 queries that a warp multiplies; one where the lists of neighbors are long, or registers would spill.
IGNN_HOST_DEVICE constexpr int rows_per_warp(int best) { return best > 8 ? 1 : 2; }
IGNN_HOST_DEVICE constexpr int threads_per_block(int best) { return 32 * kKeyRows * kQueryRows / rows_per_warp(best); }

// A call's sizes and pointers.
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

// What one block works on: a tile of queries of one image, and the union of their windows in the key grid.
template <typename T>
struct Block {
    int n, i0, j0;  // image, first query row and column
    int u_first, u_end, v_first, v_end;
    const T *query, *key;  // of this image
    const float* norm;

    __device__ explicit Block(const Problem& problem)
        : n(static_cast<int>(blockIdx.z)),
          i0(static_cast<int>(blockIdx.y) * kQueryRows),
          j0(static_cast<int>(blockIdx.x) * kQueryColumns) {
        const IgnnWindowedKnn& sizes = problem.sizes;
        const size_t image = static_cast<size_t>(n);
        query = static_cast<const T*>(problem.query) + image * sizes.height * sizes.width * sizes.channels;
        key = static_cast<const T*>(problem.key) + image * problem.key_height * problem.key_width * sizes.channels;
        norm = problem.norm + image * problem.n1 * problem.n2;
        const int i_last = min_of(i0 + kQueryRows, problem.m1) - 1;
        const int j_last = min_of(j0 + kQueryColumns, problem.m2) - 1;
        u_first = window_origin(i0, sizes.scale, problem.side1, problem.n1);
        u_end = window_origin(i_last, sizes.scale, problem.side1, problem.n1) + problem.side1;
        v_first = window_origin(j0, sizes.scale, problem.side2, problem.n2);
        v_end = window_origin(j_last, sizes.scale, problem.side2, problem.n2) + problem.side2;
    }
};

// The part of the block's work that one warp does. Lane (g, t), g = lane / 4 and t = lane % 4, holds query columns g
// and g + 8 of each of the warp's query rows.
template <int kMaps>
struct Warp {
    int warp = static_cast<int>(threadIdx.x) / 32;
    int lane = static_cast<int>(threadIdx.x) % 32;
    int query_row = warp / kKeyRows * kMaps;  // its queries: kMaps rows of the tile, from this one
    int key_row = warp % kKeyRows;            // its keys: one row of the pass
};

// Where vector `vector` of pixel x of a row lies in shared memory. Patches stand two pixels apart: the exclusive or
// keeps the same channels of eight neighboring patches in different banks, and all 16 floats of two neighboring ones.
template <int kVectors>
__device__ int vector_of(int x, int vector) {
    static_assert(kVectors == 4 || kVectors == 8, "a 128-byte line holds two pixels or one");
    const int position = x * kVectors + vector;
    const int patch = x >> 1;
    return (position & ~7) | ((position ^ (patch << 2 & 4) ^ (patch >> 1 & 3)) & 7);
}

// Shared memory: kChunk channels of the pixels, as 16-byte vectors.
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

// Copy kWidth pixels of row y of an NHWC map, from x0 on, all threads of the block together. Pixels and channels
// outside the map become zero. Done after wait_for_copies() and a barrier.
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

// Copy the pixels of the block's queries, kChunk channels from channel0 on.
template <typename T, int kChunk>
__device__ void stage_queries(Shared<T, kChunk>& shared, const Problem& problem, const Block<T>& block, int channel0) {
    using S = Shared<T, kChunk>;
    for (int y = 0; y < S::kQueryHeight; ++y) {
        stage_row<T, S::kVectors, S::kQueryWidth>(shared.query + y * S::kQueryRow, block.query, kStride * block.i0 + y,
                                                  kStride * block.j0, problem.sizes.height, problem.sizes.width,
                                                  problem.sizes.channels, channel0);
    }
}

// Copy the pixels of the pass of keys at (u0, v0), but for the first `kept` rows, which are there already.
template <typename T, int kChunk>
__device__ void stage_keys(Shared<T, kChunk>& shared, const Problem& problem, const Block<T>& block, int u0, int v0,
                           int channel0, int kept) {
    using S = Shared<T, kChunk>;
    for (int y = kStride * u0 + kept; y < kStride * u0 + S::kKeyHeight; ++y) {
        stage_row<T, S::kVectors, S::kKeyWidth>(shared.key + y % S::kKeyHeight * S::kKeyRow, block.key, y, kStride * v0,
                                                problem.key_height, problem.key_width, problem.sizes.channels,
                                                channel0);
    }
}

// Copy the norms of the pass of keys at (u0, v0).
template <typename T, int kChunk>
__device__ void stage_norms(Shared<T, kChunk>& shared, const Problem& problem, const Block<T>& block, int u0, int v0) {
    if (threadIdx.x < kKeyRows * kKeyColumns) {
        const int row = static_cast<int>(threadIdx.x) / kKeyColumns;
        const int column = static_cast<int>(threadIdx.x) % kKeyColumns;
        const bool inside = u0 + row < problem.n1 && v0 + column < problem.n2;
        shared.norm[row][column] = inside ? block.norm[(u0 + row) * problem.n2 + v0 + column] : 0.0F;
    }
}

}  // namespace ignn::knn
