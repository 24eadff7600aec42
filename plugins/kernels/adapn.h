// What the kernels of KeyStatistics and AdaPNGather share: how they read the features, and the moments of a patch.
#pragma once

#include "device.h"
#include "interface.h"

namespace ignn {

constexpr int kThreads = 256;

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
__device__ void load_pixel(const IgnnFeatures& sizes, const typename Layout::Type* map, int channel, int y, int x,
                           int height_end, int width_end, float (&values)[Layout::kSize]) {
    if (y < height_end && x < width_end) {
        Layout::load(map + Layout::offset(channel, y, x, sizes.channels, sizes.height, sizes.width), values);
    } else {
#pragma unroll
        for (int e = 0; e < Layout::kSize; ++e) {
            values[e] = 0.0F;
        }
    }
}

// Return the moments of the kSide x kSide pixels at (y0, x0).
template <typename Layout, int kSide>
__device__ Moments<Layout::kSize> patch_moments(const IgnnFeatures& sizes, const typename Layout::Type* map,
                                                int channel, int y0, int x0, int height_end, int width_end) {
    float values[Layout::kSize];
    load_pixel<Layout>(sizes, map, channel, y0 + kSide / 2, x0 + kSide / 2, height_end, width_end, values);
    Moments<Layout::kSize> moments(values);
#pragma unroll(kSide == kPatch ? kPatch : 1)
    for (int y = 0; y < kSide; ++y) {
#pragma unroll
        for (int x = 0; x < kSide; ++x) {
            load_pixel<Layout>(sizes, map, channel, y0 + y, x0 + x, height_end, width_end, values);
            moments.add(values);
        }
    }
    return moments;
}

// Stores a statistic of one patch, kSize channels of it; 16-byte aligned where kSize is more than 1.
template <int kSize>
__device__ void store_floats(float* target, const float (&values)[kSize]) {
    if constexpr (kSize == 1) {
        *target = values[0];
    } else {
#pragma unroll
        for (int e = 0; e < kSize; e += Vector<float>::kSize) {
            float part[Vector<float>::kSize];
#pragma unroll
            for (int i = 0; i < Vector<float>::kSize; ++i) {
                part[i] = values[e + i];
            }
            Vector<float>::store(target + e, part);
        }
    }
}

// Returns a kernel's problem with its sizes and the key grid that follows from them; the rest is zero.
template <typename Problem>
Problem problem_of(const IgnnFeatures& sizes) {
    Problem problem{};
    problem.sizes = sizes;
    problem.n1 = patch_count(sizes.height / sizes.scale);
    problem.n2 = patch_count(sizes.width / sizes.scale);
    problem.cropped_height = cropped_size(sizes.height, sizes.scale);
    problem.cropped_width = cropped_size(sizes.width, sizes.scale);
    return problem;
}

// A grid of blocks over `columns` x `rows` of them, every channel and the batch: blockIdx.x counts the channels' blocks
// first.
template <typename Layout>
dim3 grid_of(const IgnnFeatures& sizes, int columns, int rows) {
    return dim3(static_cast<unsigned>(columns * ceil_div(sizes.channels, Layout::kChannels)),
                static_cast<unsigned>(rows), static_cast<unsigned>(sizes.batch));
}

// Calls Launch::run<Layout, kScale>(problem, stream) for the type, layout and scale of the problem's sizes.
template <typename Launch, typename Layout, typename Problem>
int launch_for_scale(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.scale == 2 ? Launch::template run<Layout, 2>(problem, stream)
                                    : Launch::template run<Layout, 3>(problem, stream);
}

template <typename Launch, typename T, typename Problem>
int launch_for_layout(const Problem& problem, cudaStream_t stream) {
    return problem.sizes.layout == IGNN_CHANNELS_LAST ? launch_for_scale<Launch, ChannelsLast<T>>(problem, stream)
                                                      : launch_for_scale<Launch, Linear<T>>(problem, stream);
}

template <typename Launch, typename Problem>
int launch_for_type(const Problem& problem, void* stream) {
    auto* cuda_stream = static_cast<cudaStream_t>(stream);
    return problem.sizes.type == IGNN_FLOAT16 ? launch_for_layout<Launch, __half>(problem, cuda_stream)
                                              : launch_for_layout<Launch, float>(problem, cuda_stream);
}

// NULL if both kernels take these sizes, else what is wrong with them.
inline const char* refusal(const IgnnFeatures* sizes) {
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
    if (sizes->batch < 1 || sizes->batch > kMaxBatch) {
        return "the batch must be 1 to 65535";
    }
    if (sizes->height > kMaxHeight) {
        return "the features must be at most 262140 pixels high";
    }
    if (!fits_int(static_cast<long long>(sizes->height) * sizes->width)) {
        return "the features must have at most 2147483520 pixels";
    }
    return nullptr;
}

}  // namespace ignn
