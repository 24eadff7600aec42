// An operator as a TensorRT plugin: the interfaces of IPluginV3 around what the operators differ in.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "../kernels/interface.h"
#include "logging.h"

namespace ignn {

constexpr const char* kNamespace = "ignn";
constexpr const char* kVersion = "1";
// Count up when the kernels take another time: TensorRT's old measurements of them are void then.
constexpr const char* kKernels = "kernels 4";

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

// Attributes as the registry and the engine want them.
class FieldList {
  public:
    FieldList() = default;
    FieldList(const FieldList&) = delete;
    FieldList& operator=(const FieldList&) = delete;

    const nvinfer1::PluginFieldCollection* hold(std::vector<nvinfer1::PluginField> fields) {
        fields_ = std::move(fields);
        collection_.nbFields = static_cast<int32_t>(fields_.size());
        collection_.fields = fields_.data();
        return &collection_;
    }
    const nvinfer1::PluginFieldCollection* get() const { return &collection_; }

  private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

// Op is a value, the operator's attributes, with
//   kName, kInputs, kOutputs     constants
//   Sizes                        what its kernel is called with
//   fields()                     the attributes, as fields that point into this object
//   write_timing_id(text, size)  kKernels, and the attributes that the kernel's time depends on
//   read(fields)                 sets them; logs and returns false where one is missing or wrong
//   output_types(inputs, outputs), output_shapes(inputs, outputs, builder)
//                                log and return false where an input is wrong
//   takes_format(position, tensors)
//   sizes(input, dims)           of the first input
//   refusal(sizes), log_refusal(refusal, sizes), workspace(sizes), run(sizes, inputs, outputs, workspace, stream)
template <class Op>
class GraphPlugin : public nvinfer1::IPluginV3,
                    public nvinfer1::IPluginV3OneCore,
                    public nvinfer1::IPluginV3OneBuild,
                    public nvinfer1::IPluginV3OneRuntime {
  public:
    explicit GraphPlugin(const Op& op) : op_(op) { op.write_timing_id(timing_id_, sizeof(timing_id_)); }

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
            case nvinfer1::PluginCapabilityType::kCORE:
                return static_cast<nvinfer1::IPluginV3OneCore*>(this);
            case nvinfer1::PluginCapabilityType::kBUILD:
                return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
            case nvinfer1::PluginCapabilityType::kRUNTIME:
                return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    const char* getPluginName() const noexcept override { return Op::kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }
    nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) GraphPlugin(op_); }
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

    // Made again at each call: a clone's fields must not point into the original.
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
        return fields_.hold(op_.fields());
    }

    int32_t getNbOutputs() const noexcept override { return Op::kOutputs; }

    int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs, const nvinfer1::DataType* input_types,
                               int32_t inputs) const noexcept override {
        return has_count("inputs", inputs, Op::kInputs) && has_count("outputs", outputs, Op::kOutputs) &&
                       op_.output_types(input_types, output_types)
                   ? 0
                   : -1;
    }

    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t, nvinfer1::IExprBuilder& builder) noexcept override {
        return has_count("inputs", input_count, Op::kInputs) && op_.output_shapes(inputs, outputs, builder) ? 0 : -1;
    }

    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t,
                                   int32_t) noexcept override {
        return op_.takes_format(position, tensors);
    }

    // Sizes between two that are taken are taken too, so that a profile that is too small or too large fails here, at
    // build time.
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t) noexcept override {
        return takes(op_.sizes(inputs[0].desc, inputs[0].min)) && takes(op_.sizes(inputs[0].desc, inputs[0].max)) ? 0
                                                                                                                  : -1;
    }

    // TensorRT times a plugin again at each build unless it has an ID; sizes and formats are added to it by TensorRT.
    const char* getTimingCacheID() noexcept override { return timing_id_; }

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc*, int32_t, const nvinfer1::PluginTensorDesc*,
                          int32_t) noexcept override {
        return 0;
    }

    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t) const noexcept override {
        return Op::workspace(op_.sizes(inputs[0].desc, inputs[0].max));
    }

    int32_t enqueue(const nvinfer1::PluginTensorDesc* inputs, const nvinfer1::PluginTensorDesc*,
                    const void* const* input_data, void* const* output_data, void* workspace,
                    cudaStream_t stream) noexcept override {
        const typename Op::Sizes sizes = op_.sizes(inputs[0], inputs[0].dims);
        if (!takes(sizes)) {
            return -1;
        }
        const int error = Op::run(sizes, input_data, output_data, workspace, stream);
        if (error != 0) {
            log_error(Op::kName, "the kernel failed: %s", cudaGetErrorString(static_cast<cudaError_t>(error)));
        }
        return error;
    }

  private:
    static bool has_count(const char* what, int32_t count, int32_t expected) {
        if (count != expected) {
            log_error(Op::kName, "%d %s; it has %d: the file is of another version of this project; export it again",
                      count, what, expected);
        }
        return count == expected;
    }

    static bool takes(const typename Op::Sizes& sizes) {
        const char* refusal = Op::refusal(sizes);
        if (refusal != nullptr) {
            Op::log_refusal(refusal, sizes);
        }
        return refusal == nullptr;
    }

    Op op_;
    char timing_id_[96];
    FieldList fields_;
};

template <class Op>
class GraphPluginCreator : public nvinfer1::IPluginCreatorV3One {
  public:
    GraphPluginCreator() {
        const Op op{};
        std::vector<nvinfer1::PluginField> names = op.fields();
        for (nvinfer1::PluginField& field : names) {
            field.data = nullptr;
        }
        names_.hold(names);
    }
    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase) noexcept override {
        Op op{};
        return fields != nullptr && op.read(*fields) ? new (std::nothrow) GraphPlugin<Op>(op) : nullptr;
    }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return names_.get(); }
    const char* getPluginName() const noexcept override { return Op::kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

  private:
    FieldList names_;
};

}  // namespace ignn
