#include "adapn_gather.h"

#include <cstdio>

#include "../kernels/geometry.h"

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

namespace ignn {

std::vector<PluginField> AdaPNGather::fields() const {
    return {PluginField("scale", &scale, PluginFieldType::kINT32, 1),
            PluginField("eps", &eps, PluginFieldType::kFLOAT32, 1)};
}

// Without eps: no time depends on it.
void AdaPNGather::write_timing_id(char* text, size_t size) const {
    std::snprintf(text, size, "%s scale=%d", kKernels, scale);
}

bool AdaPNGather::read(const nvinfer1::PluginFieldCollection& fields) {
    if (!read_attribute(kName, fields, IntegerAttribute{"scale", &scale}) ||
        !read_attribute(kName, fields, RealAttribute{"eps", &eps})) {
        return false;
    }
    if (scale != 2 && scale != 3) {
        log_error(kName, "attribute 'scale' is %d; it must be 2 or 3", scale);
        return false;
    }
    if (!(eps > 0.0F)) {
        log_error(kName, "attribute 'eps' is %g; it must be positive", static_cast<double>(eps));
        return false;
    }
    return true;
}

bool AdaPNGather::output_types(const DataType* inputs, DataType* outputs) const {
    if (kernel_type(inputs[0]) < 0) {
        log_error(kName, "input 'features' is %s; it must be float32 or float16", type_name(inputs[0]));
        return false;
    }
    if (inputs[1] != DataType::kINT32) {
        log_error(kName, "input 'index' is %s; it must be int32", type_name(inputs[1]));
        return false;
    }
    outputs[0] = inputs[0];
    return true;
}

bool AdaPNGather::output_shapes(const DimsExprs* inputs, DimsExprs* outputs, nvinfer1::IExprBuilder& builder) const {
    const DimsExprs& features = inputs[0];
    const DimsExprs& index = inputs[1];
    if (!has_rank(kName, "features", features, 4) || !has_rank(kName, "index", index, 3)) {
        return false;
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
    switch (position) {
        case 0:
            return takes_map(features);
        case 1:
            return is_linear(tensors[1].desc, DataType::kINT32);
        case 2:
            return tensors[2].desc.type == features.type && tensors[2].desc.format == features.format;
        default:
            return false;
    }
}

IgnnAdaPNGather AdaPNGather::sizes(const PluginTensorDesc& features, const nvinfer1::Dims& dims) const {
    IgnnAdaPNGather sizes{};
    sizes.batch = static_cast<int>(dims.d[0]);
    sizes.channels = static_cast<int>(dims.d[1]);
    sizes.height = static_cast<int>(dims.d[2]);
    sizes.width = static_cast<int>(dims.d[3]);
    sizes.scale = scale;
    sizes.eps = eps;
    sizes.type = kernel_type(features.type);
    sizes.layout = kernel_layout(features.format);
    return sizes;
}

void AdaPNGather::log_refusal(const char* refusal, const IgnnAdaPNGather& sizes) {
    log_error(kName, "%s (features %d x %d x %d x %d, scale %d)", refusal, sizes.batch, sizes.channels, sizes.height,
              sizes.width, sizes.scale);
}

int AdaPNGather::run(const IgnnAdaPNGather& sizes, const void* const* inputs, void* const* outputs, void* workspace,
                     cudaStream_t stream) {
    return ignn_adapn_gather(&sizes, inputs[0], static_cast<const int*>(inputs[1]), outputs[0], workspace, stream);
}

}  // namespace ignn
