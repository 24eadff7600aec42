#include "adapn.h"

#include <cstdio>

#include "../kernels/geometry.h"

using nvinfer1::DimensionOperation;
using nvinfer1::IDimensionExpr;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace ignn {

std::vector<PluginField> AdaPN::fields() const {
    return {PluginField("scale", &scale, PluginFieldType::kINT32, 1),
            PluginField("eps", &eps, PluginFieldType::kFLOAT32, 1)};
}

// Without eps: no time depends on it.
void AdaPN::write_timing_id(char* text, size_t size) const {
    std::snprintf(text, size, "%s scale=%d", kKernels, scale);
}

bool AdaPN::read(const char* op, const nvinfer1::PluginFieldCollection& fields) {
    if (!read_attribute(op, fields, IntegerAttribute{"scale", &scale}) ||
        !read_attribute(op, fields, RealAttribute{"eps", &eps})) {
        return false;
    }
    if (scale != 2 && scale != 3) {
        log_error(op, "attribute 'scale' is %d; it must be 2 or 3", scale);
        return false;
    }
    if (!(eps > 0.0F)) {
        log_error(op, "attribute 'eps' is %g; it must be positive", static_cast<double>(eps));
        return false;
    }
    return true;
}

bool AdaPN::takes_type(const char* op, nvinfer1::DataType features) {
    if (kernel_type(features) < 0) {
        log_error(op, "input 'features' is %s; it must be float32 or float16", type_name(features));
        return false;
    }
    return true;
}

const IDimensionExpr* AdaPN::keys(const IDimensionExpr* features, nvinfer1::IExprBuilder& builder) const {
    const IDimensionExpr* scaled =
        builder.operation(DimensionOperation::kFLOOR_DIV, *features, *builder.constant(scale));
    return builder.operation(DimensionOperation::kFLOOR_DIV, *scaled, *builder.constant(kStride));
}

IgnnFeatures AdaPN::sizes(const nvinfer1::PluginTensorDesc& features, const nvinfer1::Dims& dims) const {
    IgnnFeatures sizes{};
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

void AdaPN::log_refusal(const char* op, const char* refusal, const IgnnFeatures& sizes) {
    log_error(op, "%s (features %d x %d x %d x %d, scale %d)", refusal, sizes.batch, sizes.channels, sizes.height,
              sizes.width, sizes.scale);
}

}  // namespace ignn
