// A GPU's blocks on the host, one after another, so that the kernels' own source runs where no GPU is.
//
// Every thread of a block is a coroutine that runs until it waits: for its block (__syncthreads) or for its warp
// (shuffles and matrix instructions, which the last lane to arrive carries out for all). Matrix instructions follow the
// fragment layouts of the PTX manual. Shared memory begins as NaN, and ends where the launch said that it would.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __launch_bounds__(...)

namespace emulation {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 128 * 1024;
constexpr size_t kFence = 4096;

struct Thread {
    ucontext_t context;
    unsigned index = 0;
    unsigned meeting = 0;  // of its warp, for which it waits
    bool waits_for_block = false, waits_for_warp = false, done = false;
};

struct Operands {
    const void* address;
    uint32_t words[8];
    float sums[4];
    unsigned source;
};

struct Block {
    dim3 index, grid;
    unsigned threads = 0;
    unsigned char* shared = nullptr;
    Thread* current = nullptr;
    ucontext_t scheduler;
    Operands operands[1024];
    unsigned arrived[32] = {};
    unsigned meetings[32] = {};
};

inline Block*& block() {
    static Block* value = nullptr;
    return value;
}
inline size_t& shared_limit() {
    static size_t value = 99 * 1024;
    return value;
}
inline dim3 thread_index() { return dim3(block()->current->index, 0, 0); }
inline dim3 block_size() { return dim3(block()->threads, 1, 1); }

inline void wait() { swapcontext(&block()->current->context, &block()->scheduler); }

inline void sync_block() {
    block()->current->waits_for_block = true;
    wait();
}

// Meets the other lanes of the warp; `perform(lanes)` runs once, when all have stored their operands.
template <typename Perform>
void meet(const Operands& mine, Perform perform) {
    Block& b = *block();
    const unsigned warp = b.current->index / kWarp;
    b.operands[b.current->index] = mine;
    if (++b.arrived[warp] < kWarp) {
        b.current->waits_for_warp = true;
        b.current->meeting = b.meetings[warp];
        wait();
        return;
    }
    b.arrived[warp] = 0;
    ++b.meetings[warp];
    perform(&b.operands[warp * kWarp]);
}

// Runs threads in turn until each waits. Every other block begins with its last thread, so that a missing barrier
// shows.
inline void run_block(Block& b, std::vector<Thread>& threads) {
    block() = &b;
    size_t done = 0;
    while (done < threads.size()) {
        bool moved = false;
        for (size_t turn = 0; turn < threads.size(); ++turn) {
            Thread& thread = threads[b.index.x % 2 == 0 ? turn : threads.size() - 1 - turn];
            if (thread.done || thread.waits_for_block) {
                continue;
            }
            if (thread.waits_for_warp) {
                if (b.meetings[thread.index / kWarp] == thread.meeting) {
                    continue;
                }
                thread.waits_for_warp = false;
            }
            b.current = &thread;
            swapcontext(&b.scheduler, &thread.context);
            moved = true;
            done += thread.done ? 1 : 0;
        }
        if (moved) {
            continue;
        }
        for (Thread& thread : threads) {
            if (!thread.done && !thread.waits_for_block) {
                std::abort();  // a lane waits for a warp that does not come: divergence the GPU would not survive
            }
            thread.waits_for_block = false;
        }
    }
}

inline std::function<void()>*& body() {
    static std::function<void()>* value = nullptr;
    return value;
}
inline void enter() {
    (*body())();
    block()->current->done = true;
    wait();
}

inline void prepare(Thread& thread, unsigned index, unsigned char* stack) {
    thread.index = index;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stack;
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
}

inline void run_grid(dim3 grid, unsigned threads, size_t shared_bytes, std::function<void()> kernel) {
    std::vector<unsigned char> stacks(threads * kStack);
    void* raw = std::aligned_alloc(128, (shared_bytes + kFence + 127) / 128 * 128);
    auto* shared = static_cast<unsigned char*>(raw);
    body() = &kernel;
    auto b = std::make_unique<Block>();
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                std::memset(shared, 0xff, shared_bytes + kFence);
                b->index = dim3(x, y, z);
                b->grid = grid;
                b->threads = threads;
                b->shared = shared;
                std::vector<Thread> all(threads);
                for (unsigned t = 0; t < threads; ++t) {
                    prepare(all[t], t, stacks.data() + t * kStack);
                }
                run_block(*b, all);
                for (size_t i = shared_bytes; i < shared_bytes + kFence; ++i) {
                    if (shared[i] != 0xff) {
                        std::abort();  // written past the end of shared memory
                    }
                }
            }
        }
    }
    std::free(raw);
}

}  // namespace emulation

#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block()->index)
#define gridDim (emulation::block()->grid)
#define blockDim (emulation::block_size())
#define __syncthreads() emulation::sync_block()
#define __shfl_xor_sync(mask, value, lanes) emulation::shuffle_xor(value, lanes)
#define IGNN_DYNAMIC_SHARED(name) unsigned char* name = emulation::block()->shared

namespace emulation {

template <typename T>
T shuffle_xor(T value, int lanes) {
    Operands mine{};
    std::memcpy(mine.words, &value, sizeof(T));
    const unsigned index = block()->current->index;
    meet(mine, [&](Operands* all) {
        for (unsigned lane = 0; lane < kWarp; ++lane) {
            all[lane].words[1] = all[lane ^ static_cast<unsigned>(lanes)].words[0];
        }
    });
    T result;
    std::memcpy(&result, &block()->operands[index].words[1], sizeof(T));
    return result;
}

inline float half_at(const uint32_t* words, int element) {
    __half value;
    std::memcpy(&value, reinterpret_cast<const unsigned char*>(words) + 2 * element, 2);
    return __half2float(value);
}

}  // namespace emulation

namespace ignn {

inline void copy_or_zero(void* shared, const void* global, bool inside) {
    if (inside) {
        std::memcpy(shared, global, 16);
    } else {
        std::memset(shared, 0, 16);
    }
}
inline void wait_for_copies() {}

template <int kMatrices>
void load_matrices(uint32_t (&fragment)[kMatrices], const void* row) {
    emulation::Operands mine{};
    mine.address = row;
    const unsigned index = emulation::block()->current->index;
    emulation::meet(mine, [](emulation::Operands* all) {
        for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
            for (unsigned m = 0; m < kMatrices; ++m) {
                const auto* source = static_cast<const unsigned char*>(all[8 * m + lane / 4].address);
                std::memcpy(&all[lane].words[m], source + 4 * (lane % 4), 4);
            }
        }
    });
    for (int m = 0; m < kMatrices; ++m) {
        fragment[m] = emulation::block()->operands[index].words[m];
    }
}

inline void multiply_accumulate(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Operands mine{};
    std::memcpy(mine.words, a, sizeof(a));
    mine.words[4] = b0;
    mine.words[5] = b1;
    std::memcpy(mine.sums, sum, sizeof(sum));
    const unsigned index = emulation::block()->current->index;
    emulation::meet(mine, [](emulation::Operands* all) {
        float left[16][16];
        float right[16][8];
        for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
            for (int e = 0; e < 8; ++e) {
                left[lane / 4 + 8 * (e / 2 % 2)][2 * (lane % 4) + e % 2 + 8 * (e / 4)] =
                    emulation::half_at(all[lane].words, e);
            }
            for (int e = 0; e < 4; ++e) {
                right[2 * (lane % 4) + e % 2 + 8 * (e / 2)][lane / 4] = emulation::half_at(all[lane].words + 4, e);
            }
        }
        for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
            for (unsigned e = 0; e < 4; ++e) {
                for (int depth = 0; depth < 16; ++depth) {
                    all[lane].sums[e] += left[lane / 4 + 8 * (e / 2)][depth] * right[depth][2 * (lane % 4) + e % 2];
                }
            }
        }
    });
    std::memcpy(sum, emulation::block()->operands[index].sums, sizeof(sum));
}

inline float fast_divide(float a, float b) { return a / b; }

inline uint32_t to_tf32(float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return (bits & 0x7f800000U) == 0x7f800000U ? bits : (bits + 0x1000U) & 0xffffe000U;
}

// Sums of eight products, cut to fp32 and not rounded, as GPUs do it.
inline void multiply_accumulate_tf32(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Operands mine{};
    std::memcpy(mine.words, a, sizeof(a));
    mine.words[4] = b0;
    mine.words[5] = b1;
    std::memcpy(mine.sums, sum, sizeof(sum));
    const unsigned index = emulation::block()->current->index;
    emulation::meet(mine, [](emulation::Operands* all) {
        float left[16][8];
        float right[8][8];
        for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
            for (int e = 0; e < 4; ++e) {
                std::memcpy(&left[lane / 4 + 8 * (e % 2)][lane % 4 + 4 * (e / 2)], &all[lane].words[e], 4);
            }
            for (int e = 0; e < 2; ++e) {
                std::memcpy(&right[lane % 4 + 4 * e][lane / 4], &all[lane].words[4 + e], 4);
            }
        }
        for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
            for (unsigned e = 0; e < 4; ++e) {
                double exact = all[lane].sums[e];
                for (int depth = 0; depth < 8; ++depth) {
                    exact +=
                        static_cast<double>(left[lane / 4 + 8 * (e / 2)][depth]) * right[depth][2 * (lane % 4) + e % 2];
                }
                float cut = static_cast<float>(exact);
                if (std::fabs(static_cast<double>(cut)) > std::fabs(exact)) {
                    cut = std::nextafter(cut, 0.0F);
                }
                all[lane].sums[e] = cut;
            }
        }
    });
    std::memcpy(sum, emulation::block()->operands[index].sums, sizeof(sum));
}

constexpr size_t kSharedReserved = 1024;
inline int shared_memory_per_multiprocessor(size_t* bytes) {
    *bytes = emulation::shared_limit();
    return 0;
}

inline int clear(void* target, size_t bytes, cudaStream_t) {
    std::memset(target, 0, bytes);
    return 0;
}

template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, cudaStream_t,
           Arguments... arguments) {
    if (shared_bytes > emulation::shared_limit()) {
        return cudaErrorInvalidValue;
    }
    emulation::run_grid(grid, static_cast<unsigned>(threads), shared_bytes, [=] { kernel(arguments...); });
    return 0;
}

}  // namespace ignn
