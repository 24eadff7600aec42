// One block finds the neighbors of a tile of 4 x 16 queries. Their pixels stay in shared memory; the union of their
// windows goes by in passes of 2 x 40 keys, whose pixels (not patches: those are addressed where they overlap) are
// loaded once. A warp multiplies 2 x 16 queries by one row of 40 keys, so that a thread holds the distances of 4
// queries (fewer where k is large) to 10 keys in registers, in the layout of the m16n8 tensor core instructions; it
// keeps the nearest of each query it has seen, and eight such lists are merged at the end. The block then reads the k
// chosen patches for the edge labels.
#include "edge_labels.h"
#include "merge.h"
#include "prepare.h"
#include "search.h"
#include "windowed_knn.h"

namespace ignn::knn {
namespace {

template <typename T, int kChunk, int kBest>
__global__ void __launch_bounds__(threads_per_block(kBest), kBest > 8 ? 1 : 2) windowed_knn(const Problem problem) {
    IGNN_DYNAMIC_SHARED(memory);
    Shared<T, kChunk>& shared = *reinterpret_cast<Shared<T, kChunk>*>(memory);
    constexpr int kMaps = rows_per_warp(kBest);
    const Block<T> block(problem);
    const Warp<kMaps> warp;
    Nearest<kBest> nearest[kMaps][2];
    search(shared, problem, block, warp, nearest);
    __syncthreads();  // the lists overwrite the keys
    merge_lanes(shared, warp, problem.sizes.k, nearest);
    __syncthreads();
    choose_neighbors(shared, problem, block);
    write_edge_labels(shared, problem, block, warp, problem.sizes.channels <= kChunk);
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

// Of the key patches' norms.
size_t norm_bytes(const IgnnWindowedKnn& sizes) {
    const size_t n1 = static_cast<size_t>(patch_count(sizes.height / sizes.scale));
    const size_t n2 = static_cast<size_t>(patch_count(sizes.width / sizes.scale));
    return rounded(sizeof(float) * sizes.batch * n1 * n2);
}

unsigned blocks(int items, int per_block) { return static_cast<unsigned>(ceil_div(items, per_block)); }

template <typename T, int kChunk, int kBest>
int launch_search(const Problem& problem, cudaStream_t stream) {
    const dim3 grid(blocks(problem.m2, kQueryColumns), blocks(problem.m1, kQueryRows),
                    static_cast<unsigned>(problem.sizes.batch));
    return launch(windowed_knn<T, kChunk, kBest>, grid, threads_per_block(kBest), sizeof(Shared<T, kChunk>), stream,
                  problem);
}

// Lists of 5 stay in registers beside two rows of queries; longer ones need the room of one row.
template <typename T, int kChunk>
int launch_for_k(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.k <= 5 ? launch_search<T, kChunk, 5>(problem, stream)
                                : launch_search<T, kChunk, 16>(problem, stream);
}

template <typename T>
int launch_for_channels(const Problem& problem, cudaStream_t stream);

template <>
int launch_for_channels<float>(const Problem& problem, cudaStream_t stream) {
    return launch_for_k<float, 16>(problem, stream);
}

template <>
int launch_for_channels<__half>(const Problem& problem, cudaStream_t stream) {
    size_t available = 0;
    const int error = shared_memory_per_multiprocessor(&available);
    if (error != 0) {
        return error;
    }
    // 64 channels at once spare loading the queries again in each pass. But two blocks must fit on a multiprocessor, so
    // that one computes while the other loads: they do on compute capability 9.0 and 10.x (228 KB), not on the others.
    const bool roomy = available >= 2 * (sizeof(Shared<__half, 64>) + kSharedReserved) && problem.sizes.channels > 32;
    return roomy ? launch_for_k<__half, 64>(problem, stream) : launch_for_k<__half, 32>(problem, stream);
}

template <typename T>
int launch_pack(const T* source, T* target, int batch, int channels, int pixels, cudaStream_t stream) {
    const dim3 grid(blocks(pixels, kPackTile), blocks(channels, kPackTile), static_cast<unsigned>(batch));
    return launch(pack<T>, grid, kThreads, sizeof(T) * kPackTile * (kPackTile + 1), stream, source, target, channels,
                  pixels);
}

// Queue the operator: the copies of NCHW maps, the norms, the search. `workspace` holds the norms, then the copies.
template <typename T>
int launch_operator(Problem problem, unsigned char* workspace, cudaStream_t stream) {
    const IgnnWindowedKnn& sizes = problem.sizes;
    float* norm = reinterpret_cast<float*>(workspace);
    problem.norm = norm;
    int error = 0;
    if (sizes.layout == IGNN_LINEAR) {
        T* query = reinterpret_cast<T*>(workspace + norm_bytes(sizes));
        T* key = reinterpret_cast<T*>(workspace + norm_bytes(sizes) + rounded(query_bytes(sizes)));
        error = launch_pack(static_cast<const T*>(problem.query), query, sizes.batch, sizes.channels,
                            sizes.height * sizes.width, stream);
        if (error == 0) {
            error = launch_pack(static_cast<const T*>(problem.key), key, sizes.batch, sizes.channels,
                                problem.key_height * problem.key_width, stream);
        }
        problem.query = query;
        problem.key = key;
    }
    if (error == 0) {
        const dim3 grid(blocks(sizes.batch * problem.n1 * problem.n2, kThreads / 32));
        error = launch(key_norm<T>, grid, kThreads, 0, stream, problem, norm);
    }
    return error == 0 ? launch_for_channels<T>(problem, stream) : error;
}

}  // namespace
}  // namespace ignn::knn

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
    if (sizes->batch < 1 || sizes->batch > ignn::kMaxBatch) {
        return "the batch must be 1 to 65535";
    }
    if (sizes->height > ignn::kMaxHeight) {
        return "the query map must be at most 262140 pixels high";
    }
    if (!ignn::fits_int(static_cast<long long>(sizes->height) * sizes->width)) {
        return "the query map must have at most 2147483520 pixels";
    }
    const int n1 = ignn::patch_count(sizes->height / sizes->scale);
    const int n2 = ignn::patch_count(sizes->width / sizes->scale);
    if (!ignn::fits_int(static_cast<long long>(sizes->batch) * n1 * n2)) {
        return "the key maps of a batch must have at most 2147483520 patches";
    }
    if (sizes->k > ignn::window_side(sizes->window, n1, n2) * ignn::window_side(sizes->window, n2, n1)) {
        return "k must not exceed the key patches in the window";
    }
    return nullptr;
}

size_t ignn_windowed_knn_workspace(const IgnnWindowedKnn* sizes) {
    using namespace ignn::knn;
    const bool linear = sizes->layout == IGNN_LINEAR;
    return norm_bytes(*sizes) + (linear ? rounded(query_bytes(*sizes)) + key_bytes(*sizes) : 0);
}

int ignn_windowed_knn(const IgnnWindowedKnn* sizes, const void* query, const void* key, int* index, void* edge,
                      void* workspace, void* stream) {
    if (ignn_windowed_knn_refusal(sizes) != nullptr) {
        return cudaErrorInvalidValue;
    }
    ignn::knn::Problem problem{};
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
    return sizes->type == IGNN_FLOAT16 ? ignn::knn::launch_operator<__half>(problem, bytes, cuda_stream)
                                       : ignn::knn::launch_operator<float>(problem, bytes, cuda_stream);
}
