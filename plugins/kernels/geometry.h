// Index arithmetic of the graph operators, shared by the kernels, the plugin's shape checks and host tests.
//
// Patches are 3 pixels wide at stride 2 in the low-resolution maps, and 3 * scale wide at stride 2 * scale in the
// maps that are `scale` times finer. A map of n pixels, n even, is padded with one row of zeros after its last pixel.
#pragma once

#if defined(__CUDACC__)
#define IGNN_HOST_DEVICE __host__ __device__
#else
#define IGNN_HOST_DEVICE
#endif

namespace ignn {

constexpr int kPatch = 3;
constexpr int kStride = 2;
constexpr int kPatchPixels = kPatch * kPatch;

IGNN_HOST_DEVICE constexpr int min_of(int a, int b) { return a < b ? a : b; }
IGNN_HOST_DEVICE constexpr int max_of(int a, int b) { return a > b ? a : b; }
IGNN_HOST_DEVICE constexpr int clamp_to(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}
IGNN_HOST_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Patches along a map of n >= 2 pixels.
IGNN_HOST_DEVICE constexpr int patch_count(int n) { return n / kStride; }

// Keys along one axis that a query may be compared with, in a key grid of n x other patches.
IGNN_HOST_DEVICE constexpr int window_side(int window, int n, int other) {
    return window >= n && window >= other ? n : min_of(window, min_of(n, other));
}

// First key of the window of query i (row or column), in a grid of n keys of which the window takes `side`.
IGNN_HOST_DEVICE constexpr int window_origin(int i, int scale, int side, int n) {
    return clamp_to(i / scale - side / 2, 0, n - side);
}

// The query patches (one or two along an axis of m patches) that cover pixel y of the query map: first..last.
IGNN_HOST_DEVICE constexpr int last_cover(int y, int m) { return min_of(y / kStride, m - 1); }
IGNN_HOST_DEVICE constexpr int first_cover(int y, int m) {
    return y % kStride == 0 ? min_of(max_of(y / kStride - 1, 0), m - 1) : last_cover(y, m);
}

// Where the neighbor's patch is read for query patch i whose neighbor is key patch u: output pixel y (of the map that
// is scale times finer) takes pixel y + mapped_shift of the features.
IGNN_HOST_DEVICE constexpr int mapped_shift(int i, int u, int scale) { return kStride * scale * (u - i); }

// Size to which the query-sized map is cropped before its key patches are named; pixels from here on read as zero.
IGNN_HOST_DEVICE constexpr int cropped_size(int n, int scale) { return n / scale * scale; }

// Limits of a launch: blocks along y and z of a grid (CUDA's own), and flat indices, which are int. A grid's last block
// reaches beyond the last item, by less than 128, and must not overflow there.
constexpr int kMaxBatch = 65535;
constexpr int kMaxHeight = 65535 * kStride * 2;  // one row of key patches a block, at scale 2
IGNN_HOST_DEVICE constexpr bool fits_int(long long count) { return count <= 0x7fffffffLL - 127; }

}  // namespace ignn
