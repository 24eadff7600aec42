// ignn::AdaPNGather for TensorRT. Inputs features, key_mean, key_std, index; one output; attributes scale, eps.
#pragma once

#include "../kernels/adapn_gather/adapn_gather.h"
#include "adapn.h"

namespace ignn {

struct AdaPNGather : AdaPN {
    static constexpr const char* kName = "AdaPNGather";
    static constexpr int32_t kInputs = 4;
    static constexpr int32_t kOutputs = 1;

    bool read(const nvinfer1::PluginFieldCollection& fields) { return AdaPN::read(kName, fields); }
    bool output_types(const nvinfer1::DataType* inputs, nvinfer1::DataType* outputs) const;
    bool output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                       nvinfer1::IExprBuilder& builder) const;
    bool takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const;

    static const char* refusal(const Sizes& sizes) { return ignn_adapn_gather_refusal(&sizes); }
    static void log_refusal(const char* refusal, const Sizes& sizes) { AdaPN::log_refusal(kName, refusal, sizes); }
    static int run(const Sizes& sizes, const void* const* inputs, void* const* outputs, void* workspace,
                   cudaStream_t stream);
};

}  // namespace ignn
