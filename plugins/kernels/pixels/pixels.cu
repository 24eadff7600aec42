// One thread converts one pixel: neighboring threads touch neighboring floats of each plane, and bytes that share
// lines.
#include "../device.h"
#include "pixels.h"

namespace ignn {
namespace {

constexpr int kThreads = 256;
constexpr int kColors = 3;

// The pixel of this thread, counted from the first of its image.
__device__ size_t own_pixel() { return static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; }

__global__ void __launch_bounds__(kThreads)
    pixels_to_map(const unsigned char* pixels, float* map, size_t image, float unit) {
    const size_t pixel = own_pixel();
    if (pixel >= image) {
        return;
    }
    const size_t base = blockIdx.y * kColors * image;
    for (int color = 0; color < kColors; ++color) {
        map[base + color * image + pixel] = static_cast<float>(pixels[base + kColors * pixel + color]) / unit;
    }
}

__global__ void __launch_bounds__(kThreads)
    map_to_pixels(const float* map, unsigned char* pixels, unsigned char* not_finite, size_t image, float unit) {
    const size_t pixel = own_pixel();
    if (pixel >= image) {
        return;
    }
    const size_t base = blockIdx.y * kColors * image;
    for (int color = 0; color < kColors; ++color) {
        const float value = map[base + color * image + pixel] * unit;
        if (!(fabsf(value) < INFINITY)) {
            *not_finite = 1;  // whoever writes it writes the same
        }
        pixels[base + kColors * pixel + color] = static_cast<unsigned char>(fminf(fmaxf(rintf(value), 0.0F), 255.0F));
    }
}

bool acceptable(int batch, int height, int width, float unit) {
    return batch >= 1 && batch <= 65535 && height >= 1 && width >= 1 && unit > 0.0F;
}

dim3 grid_of(int batch, size_t image) {
    return dim3(static_cast<unsigned>((image + kThreads - 1) / kThreads), static_cast<unsigned>(batch));
}

}  // namespace
}  // namespace ignn

int ignn_pixels_to_map(const unsigned char* pixels, float* map, int batch, int height, int width, float unit,
                       void* stream) {
    if (!ignn::acceptable(batch, height, width, unit)) {
        return cudaErrorInvalidValue;
    }
    const size_t image = static_cast<size_t>(height) * width;
    return ignn::launch(ignn::pixels_to_map, ignn::grid_of(batch, image), ignn::kThreads, 0,
                        static_cast<cudaStream_t>(stream), pixels, map, image, unit);
}

int ignn_map_to_pixels(const float* map, unsigned char* pixels, int batch, int height, int width, float unit,
                       void* stream) {
    if (!ignn::acceptable(batch, height, width, unit)) {
        return cudaErrorInvalidValue;
    }
    const size_t image = static_cast<size_t>(height) * width;
    unsigned char* not_finite = pixels + batch * ignn::kColors * image;
    auto* cuda_stream = static_cast<cudaStream_t>(stream);
    const int error = ignn::clear(not_finite, 1, cuda_stream);
    return error != 0 ? error
                      : ignn::launch(ignn::map_to_pixels, ignn::grid_of(batch, image), ignn::kThreads, 0, cuda_stream,
                                     map, pixels, not_finite, image, unit);
}
