// ignn::WindowedKnn for TensorRT. Inputs query, key; outputs index, edge; attributes k, window, scale.
#pragma once

#include <vector>

#include "../kernels/windowed_knn/windowed_knn.h"
#include "graph_plugin.h"

namespace ignn {

struct WindowedKnn {
    static constexpr const char* kName = "WindowedKnn";
    static constexpr int32_t kInputs = 2;
    static constexpr int32_t kOutputs = 2;
    using Sizes = IgnnWindowedKnn;

    int32_t k, window, scale;

    std::vector<nvinfer1::PluginField> fields() const;
    void write_timing_id(char* text, size_t size) const;
    bool read(const nvinfer1::PluginFieldCollection& fields);
    bool output_types(const nvinfer1::DataType* inputs, nvinfer1::DataType* outputs) const;
    bool output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                       nvinfer1::IExprBuilder& builder) const;
    bool takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const;

    Sizes sizes(const nvinfer1::PluginTensorDesc& query, const nvinfer1::Dims& dims) const;
    static const char* refusal(const Sizes& sizes) { return ignn_windowed_knn_refusal(&sizes); }
    static size_t workspace(const Sizes& sizes) { return ignn_windowed_knn_workspace(&sizes); }
    static void log_refusal(const char* refusal, const Sizes& sizes);
    static int run(const Sizes& sizes, const void* const* inputs, void* const* outputs, void* workspace,
                   cudaStream_t stream);
};

}  // namespace ignn
