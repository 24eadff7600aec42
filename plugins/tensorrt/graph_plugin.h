// What the two plugins share: the interfaces of IPluginV3, attributes, formats, checks of inputs.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "../kernels/interface.h"
#include "logging.h"

namespace ignn {

constexpr const char* kNamespace = "ignn";
constexpr const char* kVersion = "1";

// An attribute of the ONNX node: its name, and where the plugin keeps it.
struct IntegerAttribute {
    const char* name;
    int32_t* value;
};
struct RealAttribute {
    const char* name;
    float* value;
};

// Reads attributes from `fields`; all are required. Logs and returns false where one is missing or of another type.
bool read_attribute(const char* op, const nvinfer1::PluginFieldCollection& fields, IntegerAttribute attribute);
bool read_attribute(const char* op, const nvinfer1::PluginFieldCollection& fields, RealAttribute attribute);

// IGNN_FLOAT32 or IGNN_FLOAT16; -1 for any other type.
int kernel_type(nvinfer1::DataType type);
const char* type_name(nvinfer1::DataType type);

// IGNN_LINEAR or IGNN_CHANNELS_LAST.
int kernel_layout(nvinfer1::TensorFormat format);

// Whether a (N, C, H, W) map may come in this type and format: NCHW always, NHWC where C is a multiple of 8.
bool takes_map(const nvinfer1::PluginTensorDesc& map);

inline bool is_linear(const nvinfer1::PluginTensorDesc& tensor, nvinfer1::DataType type) {
    return tensor.type == type && tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

// Logs and returns false unless the input has `rank` dimensions.
bool has_rank(const char* op, const char* input, const nvinfer1::DimsExprs& dims, int rank);

// Logs and returns false where both dimensions are known at build time and differ.
bool agrees(const char* op, const char* what, const nvinfer1::IDimensionExpr& actual,
            const nvinfer1::IDimensionExpr& expected);

class GraphPlugin : public nvinfer1::IPluginV3,
                    public nvinfer1::IPluginV3OneCore,
                    public nvinfer1::IPluginV3OneBuild,
                    public nvinfer1::IPluginV3OneRuntime {
  public:
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }
    int32_t onShapeChange(const nvinfer1::PluginTensorDesc*, int32_t, const nvinfer1::PluginTensorDesc*,
                          int32_t) noexcept override {
        return 0;
    }
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

  protected:
    // The attributes as fields that point into this object.
    virtual std::vector<nvinfer1::PluginField> attribute_fields() const = 0;

  private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

// A creator's list of attribute names, as the registry wants it.
class FieldNames {
  public:
    explicit FieldNames(std::vector<nvinfer1::PluginField> fields) : fields_(std::move(fields)) {
        collection_.nbFields = static_cast<int32_t>(fields_.size());
        collection_.fields = fields_.data();
    }
    FieldNames(const FieldNames&) = delete;
    FieldNames& operator=(const FieldNames&) = delete;
    const nvinfer1::PluginFieldCollection* get() const { return &collection_; }

  private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace ignn
