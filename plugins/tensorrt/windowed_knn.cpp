#include "windowed_knn.h"

#include <cstdio>

#include "../kernels/geometry.h"

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

namespace ignn {

std::vector<PluginField> WindowedKnn::fields() const {
    return {PluginField("k", &k, PluginFieldType::kINT32, 1),
            PluginField("window", &window, PluginFieldType::kINT32, 1),
            PluginField("scale", &scale, PluginFieldType::kINT32, 1)};
}

void WindowedKnn::write_timing_id(char* text, size_t size) const {
    std::snprintf(text, size, "%s k=%d window=%d scale=%d", kKernels, k, window, scale);
}

bool WindowedKnn::read(const nvinfer1::PluginFieldCollection& fields) {
    if (!read_attribute(kName, fields, IntegerAttribute{"k", &k}) ||
        !read_attribute(kName, fields, IntegerAttribute{"window", &window}) ||
        !read_attribute(kName, fields, IntegerAttribute{"scale", &scale})) {
        return false;
    }
    if (k < 1 || k > 16) {
        log_error(kName, "attribute 'k' is %d; it must be 1 to 16", k);
        return false;
    }
    if (window < 1) {
        log_error(kName, "attribute 'window' is %d; it must be at least 1", window);
        return false;
    }
    if (scale != 2 && scale != 3) {
        log_error(kName, "attribute 'scale' is %d; it must be 2 or 3", scale);
        return false;
    }
    return true;
}

bool WindowedKnn::output_types(const DataType* inputs, DataType* outputs) const {
    if (kernel_type(inputs[0]) < 0) {
        log_error(kName, "input 'query' is %s; it must be float32 or float16", type_name(inputs[0]));
        return false;
    }
    if (inputs[1] != inputs[0]) {
        log_error(kName, "input 'key' is %s; it must be %s as 'query' is", type_name(inputs[1]), type_name(inputs[0]));
        return false;
    }
    outputs[0] = DataType::kINT32;
    outputs[1] = inputs[0];
    return true;
}

bool WindowedKnn::output_shapes(const DimsExprs* inputs, DimsExprs* outputs, nvinfer1::IExprBuilder& builder) const {
    const DimsExprs& query = inputs[0];
    const DimsExprs& key = inputs[1];
    if (!has_rank(kName, "query", query, 4) || !has_rank(kName, "key", key, 4)) {
        return false;
    }
    if (query.d[1]->isConstant() && query.d[1]->getConstantValue() % 8 != 0) {
        log_error(kName, "input 'query' has %lld channels; it must have a multiple of 8",
                  static_cast<long long>(query.d[1]->getConstantValue()));
        return false;
    }
    const auto divided = [&](const nvinfer1::IDimensionExpr* size, int by) {
        return builder.operation(DimensionOperation::kFLOOR_DIV, *size, *builder.constant(by));
    };
    if (!agrees(kName, "the batch of 'key'", *key.d[0], *query.d[0]) ||
        !agrees(kName, "the channel count of 'key'", *key.d[1], *query.d[1]) ||
        !agrees(kName, "the height of 'key'", *key.d[2], *divided(query.d[2], scale)) ||
        !agrees(kName, "the width of 'key'", *key.d[3], *divided(query.d[3], scale))) {
        return false;
    }
    const auto* m1 = divided(query.d[2], kStride);
    const auto* m2 = divided(query.d[3], kStride);
    const auto* neighbors = builder.constant(k);
    outputs[0].nbDims = 4;
    outputs[0].d[0] = query.d[0];
    outputs[0].d[1] = m1;
    outputs[0].d[2] = m2;
    outputs[0].d[3] = neighbors;
    outputs[1].nbDims = 5;
    outputs[1].d[0] = query.d[0];
    outputs[1].d[1] = neighbors;
    outputs[1].d[2] = query.d[1];
    outputs[1].d[3] = m1;
    outputs[1].d[4] = m2;
    return true;
}

bool WindowedKnn::takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    const PluginTensorDesc& query = tensors[0].desc;
    const PluginTensorDesc& tensor = tensors[position].desc;
    switch (position) {
        case 0:
            return takes_map(query);
        case 1:
            return takes_map(tensor) && tensor.type == query.type && tensor.format == query.format;
        case 2:
            return is_linear(tensor, DataType::kINT32);
        case 3:
            return is_linear(tensor, query.type);
        default:
            return false;
    }
}

IgnnWindowedKnn WindowedKnn::sizes(const PluginTensorDesc& query, const nvinfer1::Dims& dims) const {
    IgnnWindowedKnn sizes{};
    sizes.batch = static_cast<int>(dims.d[0]);
    sizes.channels = static_cast<int>(dims.d[1]);
    sizes.height = static_cast<int>(dims.d[2]);
    sizes.width = static_cast<int>(dims.d[3]);
    sizes.k = k;
    sizes.window = window;
    sizes.scale = scale;
    sizes.type = kernel_type(query.type);
    sizes.layout = kernel_layout(query.format);
    return sizes;
}

void WindowedKnn::log_refusal(const char* refusal, const IgnnWindowedKnn& sizes) {
    log_error(kName, "%s (query %d x %d x %d x %d, k %d, window %d, scale %d)", refusal, sizes.batch, sizes.channels,
              sizes.height, sizes.width, sizes.k, sizes.window, sizes.scale);
}

int WindowedKnn::run(const IgnnWindowedKnn& sizes, const void* const* inputs, void* const* outputs, void* workspace,
                     cudaStream_t stream) {
    return ignn_windowed_knn(&sizes, inputs[0], inputs[1], static_cast<int*>(outputs[0]), outputs[1], workspace,
                             stream);
}

}  // namespace ignn
