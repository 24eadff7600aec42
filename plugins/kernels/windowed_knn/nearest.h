// A sorted list of the nearest keys, in registers.
#pragma once

#include "../device.h"

namespace ignn::knn {

constexpr int kNone = 0x7fffffff;  // the index of no key; every key comes before it

// The nearest keys that one thread has seen for one query, by ascending distance. Of two keys at equal distance the one
// that was inserted first comes first.
template <int kBest>
struct Nearest {
    float distance[kBest];
    int key[kBest];

    __device__ void clear() {
#pragma unroll
        for (int r = 0; r < kBest; ++r) {
            distance[r] = INFINITY;
            key[r] = kNone;
        }
    }

    __device__ void insert(float new_distance, int new_key) {
        if (!(new_distance < distance[kBest - 1])) {  // true for NaN too, which is never inserted
            return;
        }
        distance[kBest - 1] = new_distance;
        key[kBest - 1] = new_key;
#pragma unroll
        for (int r = kBest - 1; r > 0; --r) {
            const bool swap = distance[r] < distance[r - 1];
            const float low = swap ? distance[r] : distance[r - 1];
            const float high = swap ? distance[r - 1] : distance[r];
            const int low_key = swap ? key[r] : key[r - 1];
            const int high_key = swap ? key[r - 1] : key[r];
            distance[r - 1] = low;
            distance[r] = high;
            key[r - 1] = low_key;
            key[r] = high_key;
        }
    }

    __device__ void drop_first() {
#pragma unroll
        for (int r = 0; r + 1 < kBest; ++r) {
            distance[r] = distance[r + 1];
            key[r] = key[r + 1];
        }
        distance[kBest - 1] = INFINITY;
        key[kBest - 1] = kNone;
    }
};

// Whether a key comes before another in a list: by its distance, then by its index.
__device__ inline bool nearer(float distance, int key, float other_distance, int other_key) {
    return distance < other_distance || (distance == other_distance && key < other_key);
}

}  // namespace ignn::knn
