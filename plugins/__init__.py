"""The graph operators on NVIDIA GPUs: CUDA kernels, and the TensorRT plugins around them."""
