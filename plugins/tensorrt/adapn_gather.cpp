#include "adapn_gather.h"

#include "../kernels/geometry.h"

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::PluginTensorDesc;

namespace ignn {

bool AdaPNGather::output_types(const DataType* inputs, DataType* outputs) const {
    if (!takes_type(kName, inputs[0])) {
        return false;
    }
    const char* statistics[] = {"key_mean", "key_std"};
    for (int i = 0; i < 2; ++i) {
        if (inputs[1 + i] != DataType::kFLOAT) {
            log_error(kName, "input '%s' is %s; it must be float32", statistics[i], type_name(inputs[1 + i]));
            return false;
        }
    }
    if (inputs[3] != DataType::kINT32) {
        log_error(kName, "input 'index' is %s; it must be int32", type_name(inputs[3]));
        return false;
    }
    outputs[0] = inputs[0];
    return true;
}

bool AdaPNGather::output_shapes(const DimsExprs* inputs, DimsExprs* outputs, nvinfer1::IExprBuilder& builder) const {
    const DimsExprs& features = inputs[0];
    const DimsExprs& index = inputs[3];
    if (!has_rank(kName, "features", features, 4) || !has_rank(kName, "key_mean", inputs[1], 4) ||
        !has_rank(kName, "key_std", inputs[2], 4) || !has_rank(kName, "index", index, 3)) {
        return false;
    }
    for (int i = 1; i < 3; ++i) {
        const DimsExprs& statistics = inputs[i];
        if (!agrees(kName, "the batch of the keys' statistics", *statistics.d[0], *features.d[0]) ||
            !agrees(kName, "the height of the keys' statistics", *statistics.d[1], *keys(features.d[2], builder)) ||
            !agrees(kName, "the width of the keys' statistics", *statistics.d[2], *keys(features.d[3], builder)) ||
            !agrees(kName, "the channel count of the keys' statistics", *statistics.d[3], *features.d[1])) {
            return false;
        }
    }
    const auto computed = [&](DimensionOperation operation, const nvinfer1::IDimensionExpr* size, int by) {
        return builder.operation(operation, *size, *builder.constant(by));
    };
    if (!agrees(kName, "the batch of 'index'", *index.d[0], *features.d[0]) ||
        !agrees(kName, "the height of 'index'", *index.d[1],
                *computed(DimensionOperation::kFLOOR_DIV, features.d[2], kStride)) ||
        !agrees(kName, "the width of 'index'", *index.d[2],
                *computed(DimensionOperation::kFLOOR_DIV, features.d[3], kStride))) {
        return false;
    }
    outputs[0].nbDims = 4;
    outputs[0].d[0] = features.d[0];
    outputs[0].d[1] = features.d[1];
    outputs[0].d[2] = computed(DimensionOperation::kPROD, features.d[2], scale);
    outputs[0].d[3] = computed(DimensionOperation::kPROD, features.d[3], scale);
    return true;
}

bool AdaPNGather::takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    const PluginTensorDesc& features = tensors[0].desc;
    const PluginTensorDesc& tensor = tensors[position].desc;
    switch (position) {
        case 0:
            return takes_map(features);
        case 1:
        case 2:
            return is_linear(tensor, DataType::kFLOAT);
        case 3:
            return is_linear(tensor, DataType::kINT32);
        case 4:
            return tensor.type == features.type && tensor.format == features.format;
        default:
            return false;
    }
}

int AdaPNGather::run(const IgnnFeatures& sizes, const void* const* inputs, void* const* outputs, void*,
                     cudaStream_t stream) {
    return ignn_adapn_gather(&sizes, inputs[0], static_cast<const float*>(inputs[1]),
                             static_cast<const float*>(inputs[2]), static_cast<const int*>(inputs[3]), outputs[0],
                             stream);
}

}  // namespace ignn
