// One block finds the neighbors of a tile of 4 x 16 queries. Their pixels stay in shared memory; the union of their
// windows goes by in passes of 2 x 40 keys, whose pixels (not patches: those are addressed where they overlap) are
// loaded once. A warp multiplies 2 x 16 queries by one row of 40 keys, so that a thread holds the distances of 4
// queries (fewer where k is large) to 10 keys in registers, in the layout of the m16n8 tensor core instructions; it
// keeps the nearest of each query it has seen, and eight such lists are merged at the end. The block then reads the k
// chosen patches for the edge labels.
#include "nearest.h"
#include "prepare.h"
#include "tile.h"
#include "windowed_knn.h"

namespace ignn {
namespace {

template <typename T, int kChunk, int kBest>
__global__ void __launch_bounds__(threads_per_block(kBest), kBest > 8 ? 1 : 2) windowed_knn(const Problem problem) {
    using S = Shared<T, kChunk>;
    constexpr int kMaps = rows_per_warp(kBest);
    constexpr int kWarps = threads_per_block(kBest) / 32;
    IGNN_DYNAMIC_SHARED(memory);
    S& shared = *reinterpret_cast<S*>(memory);

    const IgnnWindowedKnn& sizes = problem.sizes;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int query_row = warp / kKeyRows * kMaps;  // the warp's queries: kMaps rows of the tile
    const int key_row = warp % kKeyRows;            // its keys: one row of the pass
    const int i0 = static_cast<int>(blockIdx.y) * kQueryRows;
    const int j0 = static_cast<int>(blockIdx.x) * kQueryColumns;
    const int n = static_cast<int>(blockIdx.z);
    const T* query =
        static_cast<const T*>(problem.query) + static_cast<size_t>(n) * sizes.height * sizes.width * sizes.channels;
    const T* key = static_cast<const T*>(problem.key) +
                   static_cast<size_t>(n) * problem.key_height * problem.key_width * sizes.channels;
    const float* norm = problem.norm + static_cast<size_t>(n) * problem.n1 * problem.n2;

    // The union of the windows of the tile's queries.
    const int i_last = min_of(i0 + kQueryRows, problem.m1) - 1;
    const int j_last = min_of(j0 + kQueryColumns, problem.m2) - 1;
    const int u_first = window_origin(i0, sizes.scale, problem.side1, problem.n1);
    const int u_end = window_origin(i_last, sizes.scale, problem.side1, problem.n1) + problem.side1;
    const int v_first = window_origin(j0, sizes.scale, problem.side2, problem.n2);
    const int v_end = window_origin(j_last, sizes.scale, problem.side2, problem.n2) + problem.side2;
    const bool one_chunk = sizes.channels <= kChunk;
    const bool one_column = v_end - v_first <= kKeyColumns;

    int origin1[kMaps], origin2[2];
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
        origin1[map] = window_origin(i0 + query_row + map, sizes.scale, problem.side1, problem.n1);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        origin2[half] = window_origin(j0 + lane / 4 + 8 * half, sizes.scale, problem.side2, problem.n2);
    }
    Nearest<kBest> nearest[kMaps][2];
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
        nearest[map][0].clear();
        nearest[map][1].clear();
    }

    // Rows outside columns: every thread meets its keys in the order of their indices, which settles ties.
    for (int u0 = u_first; u0 < u_end; u0 += kKeyRows) {
        for (int v0 = v_first; v0 < v_end; v0 += kKeyColumns) {
            const bool first_pass = u0 == u_first && v0 == v_first;
            float sum[kMaps][kTiles][4] = {};
            for (int channel0 = 0; channel0 < sizes.channels; channel0 += kChunk) {
                __syncthreads();  // everybody is done with what was there
                if (first_pass || !one_chunk) {
                    for (int y = 0; y < S::kQueryHeight; ++y) {
                        stage_row<T, S::kVectors, S::kQueryWidth>(shared.query + y * S::kQueryRow, query,
                                                                  kStride * i0 + y, kStride * j0, sizes.height,
                                                                  sizes.width, sizes.channels, channel0);
                    }
                }
                const int kept = one_chunk && one_column && !first_pass ? 1 : 0;  // the last row of the pass before
                for (int y = kStride * u0 + kept; y < kStride * u0 + S::kKeyHeight; ++y) {
                    stage_row<T, S::kVectors, S::kKeyWidth>(shared.key + y % S::kKeyHeight * S::kKeyRow, key, y,
                                                            kStride * v0, problem.key_height, problem.key_width,
                                                            sizes.channels, channel0);
                }
                if (threadIdx.x < kKeyRows * kKeyColumns) {
                    const int u = u0 + static_cast<int>(threadIdx.x) / kKeyColumns;
                    const int v = v0 + static_cast<int>(threadIdx.x) % kKeyColumns;
                    shared.norm[u - u0][v - v0] = u < problem.n1 && v < problem.n2 ? norm[u * problem.n2 + v] : 0.0F;
                }
                wait_for_copies();
                __syncthreads();
                accumulate(shared, query_row, kStride * (u0 + key_row), sum);
            }

            const int u = u0 + key_row;
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
                            nearest[map][element / 2].insert(
                                fmaf(-2.0F, sum[map][tile][element], shared.norm[key_row][column]),
                                u * problem.n2 + v0 + column);
                        }
                    }
                }
            }
        }
    }

    // Merge the lists of the four threads that share a query, then those of the two warps.
    __syncthreads();
#pragma unroll
    for (int map = 0; map < kMaps; ++map) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Nearest<kBest>& mine = nearest[map][half];
            const int q = (query_row + map) * kQueryColumns + lane / 4 + 8 * half;
            for (int r = 0; r < sizes.k; ++r) {
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
                if (lane % 4 == 0) {
                    shared.best.distance[key_row][q][r] = distance;
                    shared.best.neighbor[key_row][q][r] = neighbor;
                }
            }
        }
    }
    __syncthreads();
    if (threadIdx.x < kQueries) {
        const int q = static_cast<int>(threadIdx.x);
        const int i = i0 + q / kQueryColumns;
        const int j = j0 + q % kQueryColumns;
        int taken[kKeyRows] = {0, 0};
        for (int r = 0; r < sizes.k; ++r) {
            const int second = nearer(shared.best.distance[1][q][taken[1]], shared.best.neighbor[1][q][taken[1]],
                                      shared.best.distance[0][q][taken[0]], shared.best.neighbor[0][q][taken[0]])
                                   ? 1
                                   : 0;
            int neighbor = shared.best.neighbor[second][q][second == 0 ? taken[0] : taken[1]];
            taken[0] += 1 - second;
            taken[1] += second;
            if (neighbor == kNone) {  // distances that are NaN or infinite: any key of the window will do
                neighbor = window_origin(i, sizes.scale, problem.side1, problem.n1) * problem.n2 +
                           window_origin(j, sizes.scale, problem.side2, problem.n2);
            }
            shared.best.chosen[q][r] = neighbor;
            if (i < problem.m1 && j < problem.m2) {
                problem.index[((static_cast<size_t>(n) * problem.m1 + i) * problem.m2 + j) * sizes.k + r] = neighbor;
            }
        }
    }

    // Edge labels: half a warp takes a row of 16 queries, so that it writes 16 neighboring numbers of each channel.
    T* edge =
        static_cast<T*>(problem.edge) + static_cast<size_t>(n) * sizes.k * sizes.channels * problem.m1 * problem.m2;
    for (int channel0 = 0; channel0 < sizes.channels; channel0 += kChunk) {
        __syncthreads();
        if (!one_chunk) {
            for (int y = 0; y < S::kQueryHeight; ++y) {
                stage_row<T, S::kVectors, S::kQueryWidth>(shared.query + y * S::kQueryRow, query, kStride * i0 + y,
                                                          kStride * j0, sizes.height, sizes.width, sizes.channels,
                                                          channel0);
            }
            wait_for_copies();
            __syncthreads();
        }
        constexpr int kPairs = S::kVectors / 2;
        for (int item = warp; item < sizes.k * kQueryRows * kPairs; item += kWarps) {
            const int vector = item % kPairs * 2 + lane / 16;
            const int row = item / kPairs % kQueryRows;
            const int r = item / kPairs / kQueryRows;
            const int channel = channel0 + vector * Vector<T>::kSize;
            const int i = i0 + row;
            const int j = j0 + lane % 16;
            if (i >= problem.m1 || j >= problem.m2 || channel >= sizes.channels) {
                continue;
            }
            const int neighbor = shared.best.chosen[row * kQueryColumns + lane % 16][r];
            const int key_y = kStride * (neighbor / problem.n2);
            const int key_x = kStride * (neighbor % problem.n2);
            float label[Vector<T>::kSize] = {};
#pragma unroll
            for (int patch_pixel = 0; patch_pixel < kPatchPixels; ++patch_pixel) {
                const int y = patch_pixel / kPatch;
                const int x = patch_pixel % kPatch;
                float a[Vector<T>::kSize];
                float b[Vector<T>::kSize] = {};
                Vector<T>::load(shared.query + (kStride * row + y) * S::kQueryRow +
                                    vector_of<S::kVectors>(kStride * (lane % 16) + x, vector),
                                a);
                if (key_y + y < problem.key_height && key_x + x < problem.key_width) {
                    const size_t pixel = static_cast<size_t>(key_y + y) * problem.key_width + key_x + x;
                    Vector<T>::load(key + pixel * sizes.channels + channel, b);
                }
#pragma unroll
                for (int e = 0; e < Vector<T>::kSize; ++e) {
                    label[e] += fabsf(a[e] - b[e]);
                }
            }
            const size_t plane = static_cast<size_t>(problem.m1) * problem.m2;
            T* target = edge + (static_cast<size_t>(r) * sizes.channels + channel) * plane +
                        static_cast<size_t>(i) * problem.m2 + j;
#pragma unroll
            for (int e = 0; e < Vector<T>::kSize; ++e) {
                target[static_cast<size_t>(e) * plane] = from_float<T>(label[e]);
            }
        }
    }
}

size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

size_t query_bytes(const IgnnWindowedKnn& sizes) {
    const size_t size = sizes.type == IGNN_FLOAT16 ? sizeof(__half) : sizeof(float);
    return size * sizes.batch * sizes.channels * sizes.height * sizes.width;
}

size_t key_bytes(const IgnnWindowedKnn& sizes) {
    const size_t size = sizes.type == IGNN_FLOAT16 ? sizeof(__half) : sizeof(float);
    return size * sizes.batch * sizes.channels * (sizes.height / sizes.scale) * (sizes.width / sizes.scale);
}

unsigned blocks(int items, int per_block) { return static_cast<unsigned>(ceil_div(items, per_block)); }

template <typename T, int kChunk, int kBest>
int run(const Problem& problem, cudaStream_t stream) {
    const dim3 grid(blocks(problem.m2, kQueryColumns), blocks(problem.m1, kQueryRows),
                    static_cast<unsigned>(problem.sizes.batch));
    return launch(windowed_knn<T, kChunk, kBest>, grid, threads_per_block(kBest), sizeof(Shared<T, kChunk>), stream,
                  problem);
}

template <typename T, int kChunk>
int run(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.k <= 5 ? run<T, kChunk, 5>(problem, stream) : run<T, kChunk, 16>(problem, stream);
}

int run(const Problem& problem, float, cudaStream_t stream) { return run<float, 16>(problem, stream); }

int run(const Problem& problem, __half, cudaStream_t stream) {
    size_t available = 0;
    const int error = shared_memory_per_block(&available);
    if (error != 0) {
        return error;
    }
    // All 64 channels at once keep the queries where they are; Turing has no room for that.
    const bool roomy = available >= sizeof(Shared<__half, 64>) && problem.sizes.channels > 32;
    return roomy ? run<__half, 64>(problem, stream) : run<__half, 32>(problem, stream);
}

template <typename T>
int run(Problem problem, unsigned char* workspace, cudaStream_t stream) {
    const IgnnWindowedKnn& sizes = problem.sizes;
    float* norm = reinterpret_cast<float*>(workspace);
    problem.norm = norm;
    int error = 0;
    if (sizes.layout == IGNN_LINEAR) {
        workspace += rounded(sizeof(float) * sizes.batch * problem.n1 * problem.n2);
        T* query = reinterpret_cast<T*>(workspace);
        T* key = reinterpret_cast<T*>(workspace + rounded(query_bytes(sizes)));
        const unsigned batch = static_cast<unsigned>(sizes.batch);
        const unsigned channel_blocks = blocks(sizes.channels, kPackTile);
        const size_t tile_bytes = sizeof(T) * kPackTile * (kPackTile + 1);
        const int pixels = sizes.height * sizes.width;
        const int key_pixels = problem.key_height * problem.key_width;
        error = launch(pack<T>, dim3(blocks(pixels, kPackTile), channel_blocks, batch), kThreads, tile_bytes, stream,
                       static_cast<const T*>(problem.query), query, sizes.channels, pixels);
        if (error == 0) {
            error = launch(pack<T>, dim3(blocks(key_pixels, kPackTile), channel_blocks, batch), kThreads, tile_bytes,
                           stream, static_cast<const T*>(problem.key), key, sizes.channels, key_pixels);
        }
        problem.query = query;
        problem.key = key;
    }
    if (error == 0) {
        const dim3 grid(blocks(sizes.batch * problem.n1 * problem.n2, kThreads / 32));
        error = launch(key_norm<T>, grid, kThreads, 0, stream, problem, norm);
    }
    return error == 0 ? run(problem, T{}, stream) : error;
}

}  // namespace
}  // namespace ignn

const char* ignn_windowed_knn_refusal(const IgnnWindowedKnn* sizes) {
    if (sizes->type != IGNN_FLOAT32 && sizes->type != IGNN_FLOAT16) {
        return "the maps must be float32 or float16";
    }
    if (sizes->scale != 2 && sizes->scale != 3) {
        return "scale must be 2 or 3";
    }
    if (sizes->k < 1 || sizes->k > 16) {
        return "k must be 1 to 16";
    }
    if (sizes->window < 1) {
        return "window must be at least 1";
    }
    if (sizes->channels < 8 || sizes->channels % 8 != 0) {
        return "the channels of the maps must be a multiple of 8";
    }
    if (sizes->height < 2 * sizes->scale || sizes->width < 2 * sizes->scale) {
        return "the query map must be at least 2 * scale pixels high and wide";
    }
    if (sizes->batch < 1 || sizes->batch > 65535) {
        return "the batch must be 1 to 65535";
    }
    const int n1 = ignn::patch_count(sizes->height / sizes->scale);
    const int n2 = ignn::patch_count(sizes->width / sizes->scale);
    if (sizes->k > ignn::window_side(sizes->window, n1, n2) * ignn::window_side(sizes->window, n2, n1)) {
        return "k must not exceed the key patches in the window";
    }
    return nullptr;
}

size_t ignn_windowed_knn_workspace(const IgnnWindowedKnn* sizes) {
    const size_t n1 = static_cast<size_t>(ignn::patch_count(sizes->height / sizes->scale));
    const size_t n2 = static_cast<size_t>(ignn::patch_count(sizes->width / sizes->scale));
    const size_t norms = ignn::rounded(sizeof(float) * sizes->batch * n1 * n2);
    const bool linear = sizes->layout == IGNN_LINEAR;
    return norms + (linear ? ignn::rounded(ignn::query_bytes(*sizes)) + ignn::key_bytes(*sizes) : 0);
}

int ignn_windowed_knn(const IgnnWindowedKnn* sizes, const void* query, const void* key, int* index, void* edge,
                      void* workspace, void* stream) {
    if (ignn_windowed_knn_refusal(sizes) != nullptr) {
        return cudaErrorInvalidValue;
    }
    ignn::Problem problem{};
    problem.sizes = *sizes;
    problem.m1 = ignn::patch_count(sizes->height);
    problem.m2 = ignn::patch_count(sizes->width);
    problem.key_height = sizes->height / sizes->scale;
    problem.key_width = sizes->width / sizes->scale;
    problem.n1 = ignn::patch_count(problem.key_height);
    problem.n2 = ignn::patch_count(problem.key_width);
    problem.side1 = ignn::window_side(sizes->window, problem.n1, problem.n2);
    problem.side2 = ignn::window_side(sizes->window, problem.n2, problem.n1);
    problem.query = query;
    problem.key = key;
    problem.index = index;
    problem.edge = edge;
    auto* bytes = static_cast<unsigned char*>(workspace);
    auto* cuda_stream = static_cast<cudaStream_t>(stream);
    return sizes->type == IGNN_FLOAT16 ? ignn::run<__half>(problem, bytes, cuda_stream)
                                       : ignn::run<float>(problem, bytes, cuda_stream);
}
