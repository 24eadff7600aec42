// ignn::KeyStatistics for TensorRT. Input features; outputs key_mean, key_std; attributes scale, eps.
#pragma once

#include "../kernels/key_statistics/key_statistics.h"
#include "adapn.h"

namespace ignn {

struct KeyStatistics : AdaPN {
    static constexpr const char* kName = "KeyStatistics";
    static constexpr int32_t kInputs = 1;
    static constexpr int32_t kOutputs = 2;

    bool read(const nvinfer1::PluginFieldCollection& fields) { return AdaPN::read(kName, fields); }
    bool output_types(const nvinfer1::DataType* inputs, nvinfer1::DataType* outputs) const;
    bool output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                       nvinfer1::IExprBuilder& builder) const;
    bool takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const;

    static const char* refusal(const Sizes& sizes) { return ignn_key_statistics_refusal(&sizes); }
    static void log_refusal(const char* refusal, const Sizes& sizes) { AdaPN::log_refusal(kName, refusal, sizes); }
    static int run(const Sizes& sizes, const void* const* inputs, void* const* outputs, void* workspace,
                   cudaStream_t stream);
};

}  // namespace ignn
