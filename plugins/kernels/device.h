// The few things the kernels need beyond C++: 16-byte vectors, asynchronous copies, tensor cores, launches.
//
// Tests compile the same kernels for the host, thread by thread: with IGNN_EMULATION defined, everything below that
// only a GPU can do comes from tests/plugins/emulation/emulation.h instead.
#pragma once

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "geometry.h"

#ifdef IGNN_EMULATION
#include "emulation.h"
#else

#include <cuda_runtime.h>

#define IGNN_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

namespace ignn {

__device__ inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes from global to shared memory, or writes zeros there. Done after wait_for_copies() and a barrier.
__device__ inline void copy_or_zero(void* shared, const void* global, bool inside) {
#if __CUDA_ARCH__ >= 800
    const int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
#else
    *static_cast<uint4*>(shared) = inside ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}

__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}

// Loads four (two) 8 x 8 matrices of halves; lane 8 m + r gives the address of row r of matrix m.
__device__ inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void load_matrices(uint32_t (&fragment)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// sum (16 x 8, fp32) += a (16 x 16, halves) * b (16 x 8, halves), on the tensor cores.
__device__ inline void multiply_accumulate(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
// These multiply TF32 at seven times the rate of fp32 or more, so that three products of TF32 stand for one of fp32.
#define IGNN_TF32
#endif

// The value rounded to TF32: 10 bits of mantissa, fp32's exponents.
__device__ inline uint32_t to_tf32(float value) {
    uint32_t rounded = 0;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(value));
#endif
    return rounded;
}

// sum (16 x 8, fp32) += a (16 x 8, TF32) * b (8 x 8, TF32), on the tensor cores.
__device__ inline void multiply_accumulate_tf32(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// a / b, to two units in the last place for b from 2^-126 to 2^126: without the registers of the exact division.
__device__ inline float fast_divide(float a, float b) { return __fdividef(a, b); }

// Shared memory of a multiprocessor of the current device; the system takes kSharedReserved of it for each block.
constexpr size_t kSharedReserved = 1024;
inline int shared_memory_per_multiprocessor(size_t* bytes) {
    int device = 0;
    int value = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    }
    *bytes = static_cast<size_t>(value);
    return error;
}

// Queues the writing of zeros.
inline int clear(void* target, size_t bytes, cudaStream_t stream) { return cudaMemsetAsync(target, 0, bytes, stream); }

template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
           Arguments... arguments) {
    if (shared_bytes > 48 * 1024) {
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
        if (error != cudaSuccess) {
            return error;
        }
    }
    kernel<<<grid, threads, shared_bytes, stream>>>(arguments...);
    return cudaGetLastError();
}

}  // namespace ignn

#endif  // IGNN_EMULATION

namespace ignn {

// 16 bytes of T: 8 halves or 4 floats, converted to fp32 on the way in and rounded on the way out.
template <typename T>
struct Vector;

template <>
struct Vector<float> {
    static constexpr int kSize = 4;
    static __device__ void load(const void* source, float (&values)[kSize]) {
        const float4 raw = *static_cast<const float4*>(source);
        values[0] = raw.x;
        values[1] = raw.y;
        values[2] = raw.z;
        values[3] = raw.w;
    }
    static __device__ void store(void* target, const float (&values)[kSize]) {
        *static_cast<float4*>(target) = make_float4(values[0], values[1], values[2], values[3]);
    }
};

template <>
struct Vector<__half> {
    static constexpr int kSize = 8;
    struct alignas(16) Raw {
        __half2 pair[kSize / 2];
    };
    static __device__ void load(const void* source, float (&values)[kSize]) {
        const Raw raw = *static_cast<const Raw*>(source);
#pragma unroll
        for (int i = 0; i < kSize / 2; ++i) {
            const float2 pair = __half22float2(raw.pair[i]);
            values[2 * i] = pair.x;
            values[2 * i + 1] = pair.y;
        }
    }
    static __device__ void store(void* target, const float (&values)[kSize]) {
        Raw raw;
#pragma unroll
        for (int i = 0; i < kSize / 2; ++i) {
            raw.pair[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
        }
        *static_cast<Raw*>(target) = raw;
    }
};

// An fp32 value as the sum of two of TF32, to 21 bits.
struct Split {
    uint32_t high, low;
    __device__ explicit Split(float value) : high(to_tf32(value)), low(to_tf32(value - as_float(high))) {}
    static __device__ float as_float(uint32_t bits) {
        float value;
        memcpy(&value, &bits, sizeof(value));
        return value;
    }
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
template <typename T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
    return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
    return __float2half_rn(value);
}

}  // namespace ignn
