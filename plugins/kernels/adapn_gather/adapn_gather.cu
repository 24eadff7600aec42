// A block owns a tile of 4 x 4 cells (a cell is the 2 x 2 pixels that begin where a query patch does) and 64 channels
// (16 in NCHW): it turns the statistics of the 5 x 5 queries that cover the tile, and of their neighbors, into gain and
// shift, in shared memory, and then writes every output pixel once, as the mean of at most four gathered pixels. A
// thread makes the output pixels of one pixel (for scale 3, one row of them) and one 16-byte vector of channels: they
// share gain and shift.
#include "../adapn.h"
#include "adapn_gather.h"

namespace ignn {
namespace {

constexpr int kCells = 4;                 // along each side of the tile
constexpr int kTileQueries = kCells + 1;  // along each side: a patch begins in each cell, and one before the first

struct Problem {
    IgnnFeatures sizes;
    int m1, m2, n1, n2;  // query and key grid
    int cropped_height, cropped_width;
    const void* features;
    const float* key_mean;  // (N, n1, n2, C)
    const float* key_std;
    const int* index;
    void* output;
};

template <typename Layout>
struct Shared {
    // Gain and shift of each query and channel. The two spare numbers put queries into different banks.
    float2 affine[kTileQueries * kTileQueries][Layout::kChannels + 2];
    int shift_y[kTileQueries * kTileQueries];  // from an output pixel of the query to the pixel of its neighbor
    int shift_x[kTileQueries * kTileQueries];
};

template <typename Layout, int kScale>
__global__ void __launch_bounds__(kThreads, Layout::kBlocks) adapn_gather(const Problem problem) {
    using T = typename Layout::Type;
    IGNN_DYNAMIC_SHARED(memory);
    Shared<Layout>& shared = *reinterpret_cast<Shared<Layout>*>(memory);
    const IgnnFeatures& sizes = problem.sizes;
    constexpr int kVectors = Layout::kChannels / Layout::kSize;
    const int channel_blocks = ceil_div(sizes.channels, Layout::kChannels);
    const int cell_i = static_cast<int>(blockIdx.y) * kCells;
    const int cell_j = static_cast<int>(blockIdx.x) / channel_blocks * kCells;
    const int channel0 = static_cast<int>(blockIdx.x) % channel_blocks * Layout::kChannels;
    const int n = static_cast<int>(blockIdx.z);
    const size_t pixels = static_cast<size_t>(sizes.height) * sizes.width;
    const T* map = static_cast<const T*>(problem.features) + static_cast<size_t>(n) * sizes.channels * pixels;
    T* output = static_cast<T*>(problem.output) + static_cast<size_t>(n) * sizes.channels * pixels * (kScale * kScale);

    constexpr int kQueries = kTileQueries * kTileQueries;
    for (int item = static_cast<int>(threadIdx.x); item < kQueries * kVectors; item += kThreads) {
        int q = 0;
        int vector = 0;
        Layout::share(item, kQueries, q, vector);
        const int i = cell_i - 1 + q / kTileQueries;
        const int j = cell_j - 1 + q % kTileQueries;
        const int channel = channel0 + vector * Layout::kSize;
        if (i < 0 || j < 0 || i >= problem.m1 || j >= problem.m2 || channel >= sizes.channels) {
            continue;
        }
        const Moments<Layout::kSize> moments =
            patch_moments<Layout, kPatch>(sizes, map, channel, kStride * i, kStride * j, sizes.height, sizes.width);
        const int key = clamp_to(problem.index[(static_cast<size_t>(n) * problem.m1 + i) * problem.m2 + j], 0,
                                 problem.n1 * problem.n2 - 1);
        const size_t neighbor = (static_cast<size_t>(n) * problem.n1 * problem.n2 + key) * sizes.channels + channel;
        // Loaded one by one: as vectors they would take registers that spill.
#pragma unroll
        for (int e = 0; e < Layout::kSize; ++e) {
            const float deviation = sqrtf(moments.template variance<kPatchPixels>(e) + sizes.eps);
            const float gain = fast_divide(deviation, problem.key_std[neighbor + e]);
            const float shift = fmaf(-gain, problem.key_mean[neighbor + e], moments.template mean<kPatchPixels>(e));
            shared.affine[q][vector * Layout::kSize + e] = make_float2(gain, shift);
        }
        if (vector == 0) {
            shared.shift_y[q] = mapped_shift(i, key / problem.n2, kScale);
            shared.shift_x[q] = mapped_shift(j, key % problem.n2, kScale);
        }
    }
    __syncthreads();

    constexpr int kSide = kStride * kCells;
    constexpr int kRows = kScale == 2 ? 2 : 1;  // output rows a thread makes: nine vectors of sums would spill
    constexpr int kItems = kSide * kSide * (kScale / kRows);
    for (int item = static_cast<int>(threadIdx.x); item < kItems * kVectors; item += kThreads) {
        int pixel = 0;
        int vector = 0;
        Layout::share(item, kItems, pixel, vector);
        const int row = pixel / (kSide * kSide) * kRows;
        const int y = kStride * cell_i + pixel / kSide % kSide;
        const int x = kStride * cell_j + pixel % kSide;
        const int channel = channel0 + vector * Layout::kSize;
        if (y >= sizes.height || x >= sizes.width || channel >= sizes.channels) {
            continue;
        }
        const int i_first = first_cover(y, problem.m1);
        const int i_last = last_cover(y, problem.m1);
        const int j_first = first_cover(x, problem.m2);
        const int j_last = last_cover(x, problem.m2);
        float sum[kRows * kScale][Layout::kSize] = {};
        for (int i = i_first; i <= i_last; ++i) {
            for (int j = j_first; j <= j_last; ++j) {
                const int q = (i - cell_i + 1) * kTileQueries + j - cell_j + 1;
                const int key_y = kScale * y + shared.shift_y[q];
                const int key_x = kScale * x + shared.shift_x[q];
                float2 affine[Layout::kSize];
#pragma unroll
                for (int e = 0; e < Layout::kSize; ++e) {
                    affine[e] = shared.affine[q][vector * Layout::kSize + e];
                }
#pragma unroll
                for (int part = 0; part < kRows * kScale; ++part) {
                    float values[Layout::kSize];
                    load_pixel<Layout>(sizes, map, channel, key_y + row + part / kScale, key_x + part % kScale,
                                       problem.cropped_height, problem.cropped_width, values);
#pragma unroll
                    for (int e = 0; e < Layout::kSize; ++e) {
                        sum[part][e] += fmaf(affine[e].x, values[e], affine[e].y);
                    }
                }
            }
        }
        const float share = 1.0F / static_cast<float>((i_last - i_first + 1) * (j_last - j_first + 1));
#pragma unroll
        for (int part = 0; part < kRows * kScale; ++part) {
#pragma unroll
            for (int e = 0; e < Layout::kSize; ++e) {
                sum[part][e] *= share;
            }
            Layout::store(output + Layout::offset(channel, kScale * y + row + part / kScale, kScale * x + part % kScale,
                                                  sizes.channels, kScale * sizes.height, kScale * sizes.width),
                          sum[part]);
        }
    }
}

struct Launch {
    template <typename Layout, int kScale>
    static int run(const Problem& problem, cudaStream_t stream) {
        const IgnnFeatures& sizes = problem.sizes;
        // Where the size is odd, a last half cell follows the last query.
        const dim3 grid =
            grid_of<Layout>(sizes, ceil_div(sizes.width, kStride * kCells), ceil_div(sizes.height, kStride * kCells));
        return launch(adapn_gather<Layout, kScale>, grid, kThreads, sizeof(Shared<Layout>), stream, problem);
    }
};

}  // namespace
}  // namespace ignn

const char* ignn_adapn_gather_refusal(const IgnnFeatures* sizes) { return ignn::refusal(sizes); }

int ignn_adapn_gather(const IgnnFeatures* sizes, const void* features, const float* key_mean, const float* key_std,
                      const int* index, void* output, void* stream) {
    if (ignn_adapn_gather_refusal(sizes) != nullptr) {
        return cudaErrorInvalidValue;
    }
    auto problem = ignn::problem_of<ignn::Problem>(*sizes);
    problem.m1 = ignn::patch_count(sizes->height);
    problem.m2 = ignn::patch_count(sizes->width);
    problem.features = features;
    problem.key_mean = key_mean;
    problem.key_std = key_std;
    problem.index = index;
    problem.output = output;
    return ignn::launch_for_type<ignn::Launch>(problem, stream);
}
