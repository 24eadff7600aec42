#include "adapn_gather_plugin.h"

#include <cuda_runtime_api.h>

#include <new>

#include "../kernels/adapn_gather/adapn_gather.h"
#include "../kernels/geometry.h"

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

namespace ignn {
namespace {

IgnnAdaPNGather kernel_sizes(const AdaPNGatherPlugin::Attributes& attributes, const PluginTensorDesc& features,
                             const nvinfer1::Dims& dims) {
    IgnnAdaPNGather sizes{};
    sizes.batch = static_cast<int>(dims.d[0]);
    sizes.channels = static_cast<int>(dims.d[1]);
    sizes.height = static_cast<int>(dims.d[2]);
    sizes.width = static_cast<int>(dims.d[3]);
    sizes.scale = attributes.scale;
    sizes.eps = attributes.eps;
    sizes.type = kernel_type(features.type);
    sizes.layout = kernel_layout(features.format);
    return sizes;
}

// Logs and returns false where the kernel does not take these sizes.
bool takes(const IgnnAdaPNGather& sizes) {
    const char* refusal = ignn_adapn_gather_refusal(&sizes);
    if (refusal != nullptr) {
        log_error(AdaPNGatherPlugin::kName, "%s (features %d x %d x %d x %d, scale %d)", refusal, sizes.batch,
                  sizes.channels, sizes.height, sizes.width, sizes.scale);
        return false;
    }
    return true;
}

bool valid(const AdaPNGatherPlugin::Attributes& attributes) {
    if (attributes.scale != 2 && attributes.scale != 3) {
        log_error(AdaPNGatherPlugin::kName, "attribute 'scale' is %d; it must be 2 or 3", attributes.scale);
        return false;
    }
    if (!(attributes.eps > 0.0F)) {
        log_error(AdaPNGatherPlugin::kName, "attribute 'eps' is %g; it must be positive",
                  static_cast<double>(attributes.eps));
        return false;
    }
    return true;
}

}  // namespace

nvinfer1::IPluginV3* AdaPNGatherPlugin::clone() noexcept { return new (std::nothrow) AdaPNGatherPlugin(attributes_); }

int32_t AdaPNGatherPlugin::getOutputDataTypes(DataType* output_types, int32_t outputs, const DataType* input_types,
                                              int32_t inputs) const noexcept {
    if (inputs != 2 || outputs != 1) {
        log_error(kName, "%d inputs and %d outputs; it has 2 (features, index) and 1", inputs, outputs);
        return -1;
    }
    if (kernel_type(input_types[0]) < 0) {
        log_error(kName, "input 'features' is %s; it must be float32 or float16", type_name(input_types[0]));
        return -1;
    }
    if (input_types[1] != DataType::kINT32) {
        log_error(kName, "input 'index' is %s; it must be int32", type_name(input_types[1]));
        return -1;
    }
    output_types[0] = input_types[0];
    return 0;
}

int32_t AdaPNGatherPlugin::getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t,
                                           DimsExprs* outputs, int32_t, nvinfer1::IExprBuilder& builder) noexcept {
    if (input_count != 2) {
        log_error(kName, "%d inputs; it has 2 (features, index)", input_count);
        return -1;
    }
    const DimsExprs& features = inputs[0];
    const DimsExprs& index = inputs[1];
    if (!has_rank(kName, "features", features, 4) || !has_rank(kName, "index", index, 3)) {
        return -1;
    }
    const auto computed = [&](DimensionOperation operation, const nvinfer1::IDimensionExpr* size, int by) {
        return builder.operation(operation, *size, *builder.constant(by));
    };
    if (!agrees(kName, "the batch of 'index'", *index.d[0], *features.d[0]) ||
        !agrees(kName, "the height of 'index'", *index.d[1],
                *computed(DimensionOperation::kFLOOR_DIV, features.d[2], kStride)) ||
        !agrees(kName, "the width of 'index'", *index.d[2],
                *computed(DimensionOperation::kFLOOR_DIV, features.d[3], kStride))) {
        return -1;
    }
    outputs[0].nbDims = 4;
    outputs[0].d[0] = features.d[0];
    outputs[0].d[1] = features.d[1];
    outputs[0].d[2] = computed(DimensionOperation::kPROD, features.d[2], attributes_.scale);
    outputs[0].d[3] = computed(DimensionOperation::kPROD, features.d[3], attributes_.scale);
    return 0;
}

bool AdaPNGatherPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t,
                                                  int32_t) noexcept {
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

int32_t AdaPNGatherPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t,
                                           const DynamicPluginTensorDesc*, int32_t) noexcept {
    // What the smallest size of the profile fits, all fit: a profile that begins too small fails here, not when it
    // runs.
    return takes(kernel_sizes(attributes_, inputs[0].desc, inputs[0].min)) ? 0 : -1;
}

size_t AdaPNGatherPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                                           const DynamicPluginTensorDesc*, int32_t) const noexcept {
    const IgnnAdaPNGather sizes = kernel_sizes(attributes_, inputs[0].desc, inputs[0].max);
    return ignn_adapn_gather_workspace(&sizes);
}

int32_t AdaPNGatherPlugin::enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc*,
                                   const void* const* input_data, void* const* output_data, void* workspace,
                                   cudaStream_t stream) noexcept {
    const IgnnAdaPNGather sizes = kernel_sizes(attributes_, inputs[0], inputs[0].dims);
    if (!takes(sizes)) {
        return -1;
    }
    const int error = ignn_adapn_gather(&sizes, input_data[0], static_cast<const int*>(input_data[1]), output_data[0],
                                        workspace, stream);
    if (error != 0) {
        log_error(kName, "the kernel failed: %s", cudaGetErrorString(static_cast<cudaError_t>(error)));
    }
    return error;
}

std::vector<PluginField> AdaPNGatherPlugin::attribute_fields() const {
    return {PluginField("scale", &attributes_.scale, PluginFieldType::kINT32, 1),
            PluginField("eps", &attributes_.eps, PluginFieldType::kFLOAT32, 1)};
}

AdaPNGatherCreator::AdaPNGatherCreator()
    : names_({PluginField("scale", nullptr, PluginFieldType::kINT32, 1),
              PluginField("eps", nullptr, PluginFieldType::kFLOAT32, 1)}) {}

nvinfer1::IPluginV3* AdaPNGatherCreator::createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                                      nvinfer1::TensorRTPhase) noexcept {
    const char* op = AdaPNGatherPlugin::kName;
    AdaPNGatherPlugin::Attributes attributes{};
    if (fields == nullptr || !read_attribute(op, *fields, IntegerAttribute{"scale", &attributes.scale}) ||
        !read_attribute(op, *fields, RealAttribute{"eps", &attributes.eps}) || !valid(attributes)) {
        return nullptr;
    }
    return new (std::nothrow) AdaPNGatherPlugin(attributes);
}

}  // namespace ignn
