// Two kernels. The first writes mean and 1 / std of every key patch. In the second a block owns a tile of 4 x 4 cells
// (a cell is the 2 x 2 pixels that begin where a query patch does) and 64 channels (16 in NCHW): it turns the
// statistics of the 5 x 5 queries that cover the tile into gain and shift, in shared memory, and then writes every
// output pixel once, as the mean of at most four gathered pixels. A thread makes the output pixels of one pixel (for
// scale 3, one row of them) and one 16-byte vector of channels: they share gain and shift.
#include "../device.h"
#include "adapn_gather.h"

namespace ignn {
namespace {

constexpr int kThreads = 256;
constexpr int kCells = 4;                 // along each side of the tile
constexpr int kTileQueries = kCells + 1;  // along each side: a patch begins in each cell, and one before the first

struct Problem {
    IgnnAdaPNGather sizes;
    int m1, m2, n1, n2;  // query and key grid
    int cropped_height, cropped_width;
    const void* features;
    const int* index;
    void* output;
    float2* key_statistics;  // (N, n1, n2, C): mean, 1 / std
};

// A map's layout in memory, and which pixel and channels of it each thread takes.
template <typename T>
struct ChannelsLast {
    using Type = T;
    static constexpr int kSize = Vector<T>::kSize;                      // channels a thread takes
    static constexpr int kChannels = 64;                                // channels a block takes
    static constexpr int kBlocks = sizeof(T) == sizeof(float) ? 4 : 2;  // per multiprocessor; more would spill
    static __device__ size_t offset(int channel, int y, int x, int channels, int, int width) {
        return (static_cast<size_t>(y) * width + x) * channels + channel;
    }
    // Neighboring threads take neighboring channels.
    static __device__ void share(int item, int, int& pixel, int& vector) {
        pixel = item / (kChannels / kSize);
        vector = item % (kChannels / kSize);
    }
    static __device__ void load(const T* source, float (&values)[kSize]) { Vector<T>::load(source, values); }
    static __device__ void store(T* target, const float (&values)[kSize]) { Vector<T>::store(target, values); }
};

template <typename T>
struct Linear {
    using Type = T;
    static constexpr int kSize = 1;
    static constexpr int kChannels = 16;
    static constexpr int kBlocks = 4;
    static __device__ size_t offset(int channel, int y, int x, int, int height, int width) {
        return (static_cast<size_t>(channel) * height + y) * width + x;
    }
    // Neighboring threads take neighboring pixels.
    static __device__ void share(int item, int pixels, int& pixel, int& vector) {
        pixel = item % pixels;
        vector = item / pixels;
    }
    static __device__ void load(const T* source, float (&values)[kSize]) { values[0] = to_float(*source); }
    static __device__ void store(T* target, const float (&values)[kSize]) { *target = from_float<T>(values[0]); }
};

// Mean and unbiased variance of kCount numbers, added one by one. Sums are taken around one of the numbers: it lies
// within sqrt(kCount - 1) standard deviations of the mean (Samuelson), so little cancels.
template <int kSize>
struct Moments {
    float around[kSize], sum[kSize], squares[kSize];

    __device__ explicit Moments(const float (&one)[kSize]) {
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
            around[e] = one[e];
            sum[e] = 0.0F;
            squares[e] = 0.0F;
        }
    }

    __device__ void add(const float (&values)[kSize]) {
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
            const float difference = values[e] - around[e];
            sum[e] += difference;
            squares[e] = fmaf(difference, difference, squares[e]);
        }
    }

    template <int kCount>
    __device__ float mean(int e) const {
        return around[e] + sum[e] * (1.0F / kCount);
    }

    template <int kCount>
    __device__ float variance(int e) const {
        return fmaxf(squares[e] - sum[e] * sum[e] * (1.0F / kCount), 0.0F) * (1.0F / (kCount - 1));
    }
};

// Loads one vector of channels of pixel (y, x), which reads as zero from (height_end, width_end) on.
template <typename Layout>
__device__ void load_pixel(const Problem& problem, const typename Layout::Type* map, int channel, int y, int x,
                           int height_end, int width_end, float (&values)[Layout::kSize]) {
    if (y < height_end && x < width_end) {
        Layout::load(
            map + Layout::offset(channel, y, x, problem.sizes.channels, problem.sizes.height, problem.sizes.width),
            values);
    } else {
#pragma unroll
        for (int e = 0; e < Layout::kSize; ++e) {
            values[e] = 0.0F;
        }
    }
}

// Return the moments of the kSide x kSide pixels at (y0, x0).
template <typename Layout, int kSide>
__device__ Moments<Layout::kSize> patch_moments(const Problem& problem, const typename Layout::Type* map, int channel,
                                                int y0, int x0, int height_end, int width_end) {
    float values[Layout::kSize];
    load_pixel<Layout>(problem, map, channel, y0 + kSide / 2, x0 + kSide / 2, height_end, width_end, values);
    Moments<Layout::kSize> moments(values);
#pragma unroll(kSide == kPatch ? kPatch : 1)
    for (int y = 0; y < kSide; ++y) {
#pragma unroll
        for (int x = 0; x < kSide; ++x) {
            load_pixel<Layout>(problem, map, channel, y0 + y, x0 + x, height_end, width_end, values);
            moments.add(values);
        }
    }
    return moments;
}

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
        patch_moments<Layout, kSide>(problem, map, channel, kStride * kScale * u, kStride * kScale * v,
                                     problem.cropped_height, problem.cropped_width);
    float2* target =
        problem.key_statistics + ((static_cast<size_t>(n) * problem.n1 + u) * problem.n2 + v) * channels + channel;
#pragma unroll
    for (int e = 0; e < Layout::kSize; ++e) {
        const float variance = moments.template variance<kSide * kSide>(e);
        target[e] = make_float2(moments.template mean<kSide * kSide>(e), 1.0F / sqrtf(variance + problem.sizes.eps));
    }
}

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
    const IgnnAdaPNGather& sizes = problem.sizes;
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
            patch_moments<Layout, kPatch>(problem, map, channel, kStride * i, kStride * j, sizes.height, sizes.width);
        const int key = clamp_to(problem.index[(static_cast<size_t>(n) * problem.m1 + i) * problem.m2 + j], 0,
                                 problem.n1 * problem.n2 - 1);
        const float2* statistics = problem.key_statistics +
                                   (static_cast<size_t>(n) * problem.n1 * problem.n2 + key) * sizes.channels + channel;
#pragma unroll
        for (int e = 0; e < Layout::kSize; ++e) {
            const float2 neighbor = statistics[e];
            const float deviation = sqrtf(moments.template variance<kPatchPixels>(e) + sizes.eps);
            const float gain = deviation * neighbor.y;
            const float shift = fmaf(-gain, neighbor.x, moments.template mean<kPatchPixels>(e));
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
                    load_pixel<Layout>(problem, map, channel, key_y + row + part / kScale, key_x + part % kScale,
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

template <typename Layout, int kScale>
int launch_kernels(const Problem& problem, cudaStream_t stream) {
    const IgnnAdaPNGather& sizes = problem.sizes;
    const int channel_blocks = ceil_div(sizes.channels, Layout::kChannels);
    constexpr int kKeys = kThreads * Layout::kSize / Layout::kChannels;
    const auto grid = [&](int columns, int rows) {
        return dim3(static_cast<unsigned>(columns * channel_blocks), static_cast<unsigned>(rows),
                    static_cast<unsigned>(sizes.batch));
    };
    const int error = launch(key_statistics<Layout, kScale>, grid(ceil_div(problem.n2, kKeys), problem.n1), kThreads, 0,
                             stream, problem);
    if (error != 0) {
        return error;
    }
    // Where the size is odd, a last half cell follows the last query.
    return launch(adapn_gather<Layout, kScale>,
                  grid(ceil_div(sizes.width, kStride * kCells), ceil_div(sizes.height, kStride * kCells)), kThreads,
                  sizeof(Shared<Layout>), stream, problem);
}

template <typename Layout>
int launch_for_scale(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.scale == 2 ? launch_kernels<Layout, 2>(problem, stream)
                                    : launch_kernels<Layout, 3>(problem, stream);
}

template <typename T>
int launch_for_layout(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.layout == IGNN_CHANNELS_LAST ? launch_for_scale<ChannelsLast<T>>(problem, stream)
                                                      : launch_for_scale<Linear<T>>(problem, stream);
}

}  // namespace
}  // namespace ignn

const char* ignn_adapn_gather_refusal(const IgnnAdaPNGather* sizes) {
    if (sizes->type != IGNN_FLOAT32 && sizes->type != IGNN_FLOAT16) {
        return "the features must be float32 or float16";
    }
    if (sizes->scale != 2 && sizes->scale != 3) {
        return "scale must be 2 or 3";
    }
    if (!(sizes->eps > 0.0F)) {
        return "eps must be positive";
    }
    if (sizes->channels < 1 || (sizes->layout == IGNN_CHANNELS_LAST && sizes->channels % 8 != 0)) {
        return "the channels of channels-last features must be a multiple of 8";
    }
    if (sizes->height < 2 * sizes->scale || sizes->width < 2 * sizes->scale) {
        return "the features must be at least 2 * scale pixels high and wide";
    }
    if (sizes->batch < 1 || sizes->batch > ignn::kMaxBatch) {
        return "the batch must be 1 to 65535";
    }
    if (sizes->height > ignn::kMaxHeight) {
        return "the features must be at most 262140 pixels high";
    }
    if (!ignn::fits_int(static_cast<long long>(sizes->height) * sizes->width)) {
        return "the features must have at most 2147483520 pixels";
    }
    return nullptr;
}

size_t ignn_adapn_gather_workspace(const IgnnAdaPNGather* sizes) {
    const size_t n1 = static_cast<size_t>(ignn::patch_count(sizes->height / sizes->scale));
    const size_t n2 = static_cast<size_t>(ignn::patch_count(sizes->width / sizes->scale));
    return sizeof(float2) * sizes->batch * n1 * n2 * sizes->channels;
}

int ignn_adapn_gather(const IgnnAdaPNGather* sizes, const void* features, const int* index, void* output,
                      void* workspace, void* stream) {
    if (ignn_adapn_gather_refusal(sizes) != nullptr) {
        return cudaErrorInvalidValue;
    }
    ignn::Problem problem{};
    problem.sizes = *sizes;
    problem.m1 = ignn::patch_count(sizes->height);
    problem.m2 = ignn::patch_count(sizes->width);
    problem.n1 = ignn::patch_count(sizes->height / sizes->scale);
    problem.n2 = ignn::patch_count(sizes->width / sizes->scale);
    problem.cropped_height = ignn::cropped_size(sizes->height, sizes->scale);
    problem.cropped_width = ignn::cropped_size(sizes->width, sizes->scale);
    problem.features = features;
    problem.index = index;
    problem.output = output;
    problem.key_statistics = static_cast<float2*>(workspace);
    auto* cuda_stream = static_cast<cudaStream_t>(stream);
    return sizes->type == IGNN_FLOAT16 ? ignn::launch_for_layout<__half>(problem, cuda_stream)
                                       : ignn::launch_for_layout<float>(problem, cuda_stream);
}
