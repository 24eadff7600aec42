// The search: all keys of the union of the windows pass by, and each thread keeps the nearest of its queries.
#pragma once

#include "nearest.h"
#include "products.h"

namespace ignn::knn {

// Insert the distances of one pass of keys, those inside each query's window, into the lists of its queries.
template <int kBest, int kMaps>
__device__ __forceinline__ void insert_pass(const Problem& problem, const float (&norm)[kKeyColumns],
                                            const float (&sum)[kMaps][kTiles][4], const int (&origin1)[kMaps],
                                            const int (&origin2)[2], int u, int v0, int lane,
                                            Nearest<kBest> (&nearest)[kMaps][2]) {
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
        const bool row_inside = static_cast<unsigned>(u - origin1[map]) < static_cast<unsigned>(problem.side1);
        const unsigned side2 = row_inside ? static_cast<unsigned>(problem.side2) : 0U;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
            for (int element = 0; element < 4; ++element) {
                const int column = 8 * tile + 2 * (lane % 4) + element % 2;
                if (static_cast<unsigned>(v0 + column - origin2[element / 2]) < side2) {
                    // |q - k|^2 less |q|^2, which is the same for all keys.
                    nearest[map][element / 2].insert(fmaf(-2.0F, sum[map][tile][element], norm[column]),
                                                     u * problem.n2 + v0 + column);
                }
            }
        }
    }
}

// Fill nearest[map][half] with the nearest keys that this thread sees of the query in row query_row + map and column
// lane / 4 + 8 * half of the tile. Four threads of each of the kKeyRows warps with the same queries share each of them.
template <typename T, int kChunk, int kBest, int kMaps>
__device__ __forceinline__ void search(Shared<T, kChunk>& shared, const Problem& problem, const Block<T>& block,
                                       const Warp<kMaps>& warp, Nearest<kBest> (&nearest)[kMaps][2]) {
    const IgnnWindowedKnn& sizes = problem.sizes;
    const bool one_chunk = sizes.channels <= kChunk;
    const bool one_column = block.v_end - block.v_first <= kKeyColumns;
    int origin1[kMaps], origin2[2];
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
        origin1[map] = window_origin(block.i0 + warp.query_row + map, sizes.scale, problem.side1, problem.n1);
        nearest[map][0].clear();
        nearest[map][1].clear();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        origin2[half] = window_origin(block.j0 + warp.lane / 4 + 8 * half, sizes.scale, problem.side2, problem.n2);
    }

    // Rows outside columns: every thread meets its keys in the order of their indices, which settles ties.
    for (int u0 = block.u_first; u0 < block.u_end; u0 += kKeyRows) {
        for (int v0 = block.v_first; v0 < block.v_end; v0 += kKeyColumns) {
            const bool first_pass = u0 == block.u_first && v0 == block.v_first;
            float sum[kMaps][kTiles][4] = {};
            for (int channel0 = 0; channel0 < sizes.channels; channel0 += kChunk) {
                __syncthreads();  // every thread has read what these copies overwrite
                if (first_pass || !one_chunk) {
                    stage_queries(shared, problem, block, channel0);
                }
                const int kept = one_chunk && one_column && !first_pass ? 1 : 0;  // the last row of the pass before
                stage_keys(shared, problem, block, u0, v0, channel0, kept);
                stage_norms(shared, problem, block, u0, v0);
                wait_for_copies();
                __syncthreads();
                accumulate(shared, warp.query_row, kStride * (u0 + warp.key_row), sum);
            }
            insert_pass(problem, shared.norm[warp.key_row], sum, origin1, origin2, u0 + warp.key_row, v0, warp.lane,
                        nearest);
        }
    }
}

}  // namespace ignn::knn
