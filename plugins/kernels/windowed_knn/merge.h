// From the threads' lists to the neighbors of each query.
#pragma once

#include "nearest.h"
#include "tile.h"

namespace ignn::knn {

// Merge the lists of the four threads of a warp that share a query into shared.best, one list per row of keys.
template <typename T, int kChunk, int kBest, int kMaps>
__device__ __forceinline__ void merge_lanes(Shared<T, kChunk>& shared, const Warp<kMaps>& warp, int k,
                                            Nearest<kBest> (&nearest)[kMaps][2]) {
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Nearest<kBest>& mine = nearest[map][half];
            const int q = (warp.query_row + map) * kQueryColumns + warp.lane / 4 + 8 * half;
            for (int r = 0; r < k; ++r) {
                float distance = mine.distance[0];
                int neighbor = mine.key[0];
#pragma unroll
                for (int other = 1; other < 4; other *= 2) {
                    const float other_distance = __shfl_xor_sync(0xffffffffU, distance, other);
                    const int other_neighbor = __shfl_xor_sync(0xffffffffU, neighbor, other);
                    if (nearer(other_distance, other_neighbor, distance, neighbor)) {
                        distance = other_distance;
                        neighbor = other_neighbor;
                    }
                }
                if (neighbor == mine.key[0]) {
                    mine.drop_first();
                }
                if (warp.lane % 4 == 0) {
                    shared.best.distance[warp.key_row][q][r] = distance;
                    shared.best.neighbor[warp.key_row][q][r] = neighbor;
                }
            }
        }
    }
}

// Merge the two lists of each query, one thread a query: write its neighbors to the output and to shared.best.chosen.
template <typename T, int kChunk>
__device__ __forceinline__ void choose_neighbors(Shared<T, kChunk>& shared, const Problem& problem,
                                                 const Block<T>& block) {
    static_assert(kKeyRows == 2, "two lists are merged");
    if (threadIdx.x >= kQueries) {
        return;
    }
    const IgnnWindowedKnn& sizes = problem.sizes;
    const int q = static_cast<int>(threadIdx.x);
    const int i = block.i0 + q / kQueryColumns;
    const int j = block.j0 + q % kQueryColumns;
    int taken[kKeyRows] = {0, 0};
    for (int r = 0; r < sizes.k; ++r) {
        const bool second = nearer(shared.best.distance[1][q][taken[1]], shared.best.neighbor[1][q][taken[1]],
                                   shared.best.distance[0][q][taken[0]], shared.best.neighbor[0][q][taken[0]]);
        int neighbor = second ? shared.best.neighbor[1][q][taken[1]] : shared.best.neighbor[0][q][taken[0]];
        taken[0] += second ? 0 : 1;
        taken[1] += second ? 1 : 0;
        if (neighbor == kNone) {  // distances that are NaN or infinite: any key of the window will do
            neighbor = window_origin(i, sizes.scale, problem.side1, problem.n1) * problem.n2 +
                       window_origin(j, sizes.scale, problem.side2, problem.n2);
        }
        shared.best.chosen[q][r] = neighbor;
        if (i < problem.m1 && j < problem.m2) {
            problem.index[((static_cast<size_t>(block.n) * problem.m1 + i) * problem.m2 + j) * sizes.k + r] = neighbor;
        }
    }
}

}  // namespace ignn::knn
