#include "windowed_knn_plugin.h"

#include <cuda_runtime_api.h>

#include <new>

#include "../kernels/geometry.h"
#include "../kernels/windowed_knn/windowed_knn.h"

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

namespace ignn {
namespace {

IgnnWindowedKnn kernel_sizes(const WindowedKnnPlugin::Attributes& attributes, const PluginTensorDesc& query,
                             const nvinfer1::Dims& dims) {
    IgnnWindowedKnn sizes{};
    sizes.batch = static_cast<int>(dims.d[0]);
    sizes.channels = static_cast<int>(dims.d[1]);
    sizes.height = static_cast<int>(dims.d[2]);
    sizes.width = static_cast<int>(dims.d[3]);
    sizes.k = attributes.k;
    sizes.window = attributes.window;
    sizes.scale = attributes.scale;
    sizes.type = kernel_type(query.type);
    sizes.layout = kernel_layout(query.format);
    return sizes;
}

// Logs and returns false where the kernel does not take these sizes.
bool takes(const IgnnWindowedKnn& sizes) {
    const char* refusal = ignn_windowed_knn_refusal(&sizes);
    if (refusal != nullptr) {
        log_error(WindowedKnnPlugin::kName, "%s (query %d x %d x %d x %d, k %d, window %d, scale %d)", refusal,
                  sizes.batch, sizes.channels, sizes.height, sizes.width, sizes.k, sizes.window, sizes.scale);
        return false;
    }
    return true;
}

bool valid(const WindowedKnnPlugin::Attributes& attributes) {
    if (attributes.k < 1 || attributes.k > 16) {
        log_error(WindowedKnnPlugin::kName, "attribute 'k' is %d; it must be 1 to 16", attributes.k);
        return false;
    }
    if (attributes.window < 1) {
        log_error(WindowedKnnPlugin::kName, "attribute 'window' is %d; it must be at least 1", attributes.window);
        return false;
    }
    if (attributes.scale != 2 && attributes.scale != 3) {
        log_error(WindowedKnnPlugin::kName, "attribute 'scale' is %d; it must be 2 or 3", attributes.scale);
        return false;
    }
    return true;
}

}  // namespace

nvinfer1::IPluginV3* WindowedKnnPlugin::clone() noexcept { return new (std::nothrow) WindowedKnnPlugin(attributes_); }

int32_t WindowedKnnPlugin::getOutputDataTypes(DataType* output_types, int32_t outputs, const DataType* input_types,
                                              int32_t inputs) const noexcept {
    if (inputs != 2 || outputs != 2) {
        log_error(kName, "%d inputs and %d outputs; it has 2 (query, key) and 2 (index, edge)", inputs, outputs);
        return -1;
    }
    if (kernel_type(input_types[0]) < 0) {
        log_error(kName, "input 'query' is %s; it must be float32 or float16", type_name(input_types[0]));
        return -1;
    }
    if (input_types[1] != input_types[0]) {
        log_error(kName, "input 'key' is %s; it must be %s as 'query' is", type_name(input_types[1]),
                  type_name(input_types[0]));
        return -1;
    }
    output_types[0] = DataType::kINT32;
    output_types[1] = input_types[0];
    return 0;
}

int32_t WindowedKnnPlugin::getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t,
                                           DimsExprs* outputs, int32_t, nvinfer1::IExprBuilder& builder) noexcept {
    if (input_count != 2) {
        log_error(kName, "%d inputs; it has 2 (query, key)", input_count);
        return -1;
    }
    const DimsExprs& query = inputs[0];
    const DimsExprs& key = inputs[1];
    if (!has_rank(kName, "query", query, 4) || !has_rank(kName, "key", key, 4)) {
        return -1;
    }
    if (query.d[1]->isConstant() && query.d[1]->getConstantValue() % 8 != 0) {
        log_error(kName, "input 'query' has %lld channels; it must have a multiple of 8",
                  static_cast<long long>(query.d[1]->getConstantValue()));
        return -1;
    }
    const auto divided = [&](const nvinfer1::IDimensionExpr* size, int by) {
        return builder.operation(DimensionOperation::kFLOOR_DIV, *size, *builder.constant(by));
    };
    if (!agrees(kName, "the batch of 'key'", *key.d[0], *query.d[0]) ||
        !agrees(kName, "the channel count of 'key'", *key.d[1], *query.d[1]) ||
        !agrees(kName, "the height of 'key'", *key.d[2], *divided(query.d[2], attributes_.scale)) ||
        !agrees(kName, "the width of 'key'", *key.d[3], *divided(query.d[3], attributes_.scale))) {
        return -1;
    }
    const auto* m1 = divided(query.d[2], kStride);
    const auto* m2 = divided(query.d[3], kStride);
    const auto* k = builder.constant(attributes_.k);
    outputs[0].nbDims = 4;
    outputs[0].d[0] = query.d[0];
    outputs[0].d[1] = m1;
    outputs[0].d[2] = m2;
    outputs[0].d[3] = k;
    outputs[1].nbDims = 5;
    outputs[1].d[0] = query.d[0];
    outputs[1].d[1] = k;
    outputs[1].d[2] = query.d[1];
    outputs[1].d[3] = m1;
    outputs[1].d[4] = m2;
    return 0;
}

bool WindowedKnnPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t,
                                                  int32_t) noexcept {
    const PluginTensorDesc& query = tensors[0].desc;
    switch (position) {
        case 0:
            return takes_map(query);
        case 1:
            return takes_map(tensors[1].desc) && tensors[1].desc.type == query.type &&
                   tensors[1].desc.format == query.format;
        case 2:
            return is_linear(tensors[2].desc, DataType::kINT32);
        case 3:
            return is_linear(tensors[3].desc, query.type);
        default:
            return false;
    }
}

int32_t WindowedKnnPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t,
                                           const DynamicPluginTensorDesc*, int32_t) noexcept {
    // What the smallest size of the profile fits, all fit: a profile that begins too small fails here, not when it
    // runs.
    return takes(kernel_sizes(attributes_, inputs[0].desc, inputs[0].min)) ? 0 : -1;
}

size_t WindowedKnnPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                                           const DynamicPluginTensorDesc*, int32_t) const noexcept {
    const IgnnWindowedKnn sizes = kernel_sizes(attributes_, inputs[0].desc, inputs[0].max);
    return ignn_windowed_knn_workspace(&sizes);
}

int32_t WindowedKnnPlugin::enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc*,
                                   const void* const* input_data, void* const* output_data, void* workspace,
                                   cudaStream_t stream) noexcept {
    const IgnnWindowedKnn sizes = kernel_sizes(attributes_, inputs[0], inputs[0].dims);
    if (!takes(sizes)) {
        return -1;
    }
    const int error = ignn_windowed_knn(&sizes, input_data[0], input_data[1], static_cast<int*>(output_data[0]),
                                        output_data[1], workspace, stream);
    if (error != 0) {
        log_error(kName, "the kernel failed: %s", cudaGetErrorString(static_cast<cudaError_t>(error)));
    }
    return error;
}

std::vector<PluginField> WindowedKnnPlugin::attribute_fields() const {
    return {PluginField("k", &attributes_.k, PluginFieldType::kINT32, 1),
            PluginField("window", &attributes_.window, PluginFieldType::kINT32, 1),
            PluginField("scale", &attributes_.scale, PluginFieldType::kINT32, 1)};
}

WindowedKnnCreator::WindowedKnnCreator()
    : names_({PluginField("k", nullptr, PluginFieldType::kINT32, 1),
              PluginField("window", nullptr, PluginFieldType::kINT32, 1),
              PluginField("scale", nullptr, PluginFieldType::kINT32, 1)}) {}

nvinfer1::IPluginV3* WindowedKnnCreator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                                      nvinfer1::TensorRTPhase) noexcept {
    const char* op = WindowedKnnPlugin::kName;
    WindowedKnnPlugin::Attributes attributes{};
    if (fields == nullptr || !read_attribute(op, *fields, IntegerAttribute{"k", &attributes.k}) ||
        !read_attribute(op, *fields, IntegerAttribute{"window", &attributes.window}) ||
        !read_attribute(op, *fields, IntegerAttribute{"scale", &attributes.scale}) || !valid(attributes)) {
        return nullptr;
    }
    return new (std::nothrow) WindowedKnnPlugin(attributes);
}

}  // namespace ignn
