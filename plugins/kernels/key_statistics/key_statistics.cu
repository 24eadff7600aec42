// A thread takes one patch and one 16-byte vector of its channels (one channel in NCHW).
#include "../adapn.h"
#include "key_statistics.h"

namespace ignn {
namespace {

struct Problem {
    IgnnFeatures sizes;
    int n1, n2;  // key grid
    int cropped_height, cropped_width;
    const void* features;
    float* key_mean;  // (N, n1, n2, C)
    float* key_std;
};

template <typename Layout, int kScale>
__global__ void __launch_bounds__(kThreads, 2) key_statistics(const Problem problem) {
    using T = typename Layout::Type;
    const int channels = problem.sizes.channels;
    // A block takes kKeys patches of one row of the grid, and kChannels channels of each.
    constexpr int kKeys = kThreads * Layout::kSize / Layout::kChannels;
    int key = 0;
    int vector = 0;
    Layout::share(static_cast<int>(threadIdx.x), kKeys, key, vector);
    const int channel_blocks = ceil_div(channels, Layout::kChannels);
    const int u = static_cast<int>(blockIdx.y);
    const int v = static_cast<int>(blockIdx.x) / channel_blocks * kKeys + key;
    const int channel = static_cast<int>(blockIdx.x) % channel_blocks * Layout::kChannels + vector * Layout::kSize;
    const int n = static_cast<int>(blockIdx.z);
    if (v >= problem.n2 || channel >= channels) {
        return;
    }
    const T* map = static_cast<const T*>(problem.features) +
                   static_cast<size_t>(n) * channels * problem.sizes.height * problem.sizes.width;
    constexpr int kSide = kPatch * kScale;
    const Moments<Layout::kSize> moments =
        patch_moments<Layout, kSide>(problem.sizes, map, channel, kStride * kScale * u, kStride * kScale * v,
                                     problem.cropped_height, problem.cropped_width);
    float mean[Layout::kSize];
    float deviation[Layout::kSize];
#pragma unroll
    for (int e = 0; e < Layout::kSize; ++e) {
        mean[e] = moments.template mean<kSide * kSide>(e);
        deviation[e] = sqrtf(moments.template variance<kSide * kSide>(e) + problem.sizes.eps);
    }
    const size_t target = ((static_cast<size_t>(n) * problem.n1 + u) * problem.n2 + v) * channels + channel;
    store_floats(problem.key_mean + target, mean);
    store_floats(problem.key_std + target, deviation);
}

struct Launch {
    template <typename Layout, int kScale>
    static int run(const Problem& problem, cudaStream_t stream) {
        constexpr int kKeys = kThreads * Layout::kSize / Layout::kChannels;
        return launch(key_statistics<Layout, kScale>,
                      grid_of<Layout>(problem.sizes, ceil_div(problem.n2, kKeys), problem.n1), kThreads, 0, stream,
                      problem);
    }
};

}  // namespace
}  // namespace ignn

const char* ignn_key_statistics_refusal(const IgnnFeatures* sizes) { return ignn::refusal(sizes); }

int ignn_key_statistics(const IgnnFeatures* sizes, const void* features, float* key_mean, float* key_std,
                        void* stream) {
    if (ignn_key_statistics_refusal(sizes) != nullptr) {
        return cudaErrorInvalidValue;
    }
    auto problem = ignn::problem_of<ignn::Problem>(*sizes);
    problem.features = features;
    problem.key_mean = key_mean;
    problem.key_std = key_std;
    return ignn::launch_for_type<ignn::Launch>(problem, stream);
}
