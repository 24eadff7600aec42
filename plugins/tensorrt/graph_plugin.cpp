#include "graph_plugin.h"

#include <cstring>

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;

namespace ignn {
namespace {

const PluginField* find_field(const char* op, const PluginFieldCollection& fields, const char* name) {
    for (int32_t i = 0; i < fields.nbFields; ++i) {
        const PluginField& field = fields.fields[i];
        if (field.name != nullptr && std::strcmp(field.name, name) == 0 && field.data != nullptr && field.length == 1) {
            return &field;
        }
    }
    log_error(op, "attribute '%s' is missing, or not a single number; set it on the ONNX node", name);
    return nullptr;
}

}  // namespace

bool read_attribute(const char* op, const PluginFieldCollection& fields, IntegerAttribute attribute) {
    const PluginField* field = find_field(op, fields, attribute.name);
    if (field == nullptr) {
        return false;
    }
    int64_t value = 0;
    if (field->type == PluginFieldType::kINT32) {
        value = *static_cast<const int32_t*>(field->data);
    } else if (field->type == PluginFieldType::kINT64) {
        value = *static_cast<const int64_t*>(field->data);
    } else {
        log_error(op, "attribute '%s' must be an integer", attribute.name);
        return false;
    }
    if (value < INT32_MIN || value > INT32_MAX) {
        log_error(op, "attribute '%s' (%lld) is out of the range of int32", attribute.name,
                  static_cast<long long>(value));
        return false;
    }
    *attribute.value = static_cast<int32_t>(value);
    return true;
}

bool read_attribute(const char* op, const PluginFieldCollection& fields, RealAttribute attribute) {
    const PluginField* field = find_field(op, fields, attribute.name);
    if (field == nullptr) {
        return false;
    }
    if (field->type != PluginFieldType::kFLOAT32) {
        log_error(op, "attribute '%s' must be a float32", attribute.name);
        return false;
    }
    *attribute.value = *static_cast<const float*>(field->data);
    return true;
}

int kernel_type(DataType type) {
    return type == DataType::kFLOAT ? IGNN_FLOAT32 : type == DataType::kHALF ? IGNN_FLOAT16 : -1;
}

const char* type_name(DataType type) {
    switch (type) {
        case DataType::kFLOAT:
            return "float32";
        case DataType::kHALF:
            return "float16";
        case DataType::kBF16:
            return "bfloat16";
        case DataType::kINT32:
            return "int32";
        case DataType::kINT64:
            return "int64";
        default:
            return "another type";
    }
}

int kernel_layout(TensorFormat format) { return format == TensorFormat::kLINEAR ? IGNN_LINEAR : IGNN_CHANNELS_LAST; }

bool takes_map(const nvinfer1::PluginTensorDesc& map) {
    if (kernel_type(map.type) < 0) {
        return false;
    }
    if (map.format == TensorFormat::kLINEAR) {
        return true;
    }
    const TensorFormat channels_last = map.type == DataType::kHALF ? TensorFormat::kHWC8 : TensorFormat::kHWC;
    return map.format == channels_last && map.dims.nbDims == 4 && map.dims.d[1] > 0 && map.dims.d[1] % 8 == 0;
}

bool has_rank(const char* op, const char* input, const nvinfer1::DimsExprs& dims, int rank) {
    if (dims.nbDims != rank) {
        log_error(op, "input '%s' has %d dimensions; it must have %d", input, dims.nbDims, rank);
        return false;
    }
    return true;
}

bool agrees(const char* op, const char* what, const nvinfer1::IDimensionExpr& actual,
            const nvinfer1::IDimensionExpr& expected) {
    if (actual.isConstant() && expected.isConstant() && actual.getConstantValue() != expected.getConstantValue()) {
        log_error(op, "%s is %lld; it must be %lld", what, static_cast<long long>(actual.getConstantValue()),
                  static_cast<long long>(expected.getConstantValue()));
        return false;
    }
    return true;
}

}  // namespace ignn
