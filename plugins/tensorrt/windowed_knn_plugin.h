// ignn::WindowedKnn as a TensorRT plugin. Inputs query, key; outputs index, edge; attributes k, window, scale.
#pragma once

#include "graph_plugin.h"

namespace ignn {

class WindowedKnnPlugin : public GraphPlugin {
  public:
    static constexpr const char* kName = "WindowedKnn";

    struct Attributes {
        int32_t k, window, scale;
    };

    explicit WindowedKnnPlugin(const Attributes& attributes) : attributes_(attributes) {}

    const char* getPluginName() const noexcept override { return kName; }
    nvinfer1::IPluginV3* clone() noexcept override;
    int32_t getNbOutputs() const noexcept override { return 2; }
    int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs, const nvinfer1::DataType* input_types,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t inputs,
                                   int32_t outputs) noexcept override;
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t) noexcept override;
    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t) const noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* inputs, const nvinfer1::PluginTensorDesc* outputs,
                    const void* const* input_data, void* const* output_data, void* workspace,
                    cudaStream_t stream) noexcept override;

  protected:
    std::vector<nvinfer1::PluginField> attribute_fields() const override;

  private:
    Attributes attributes_;
};

class WindowedKnnCreator : public nvinfer1::IPluginCreatorV3One {
  public:
    WindowedKnnCreator();
    nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return names_.get(); }
    const char* getPluginName() const noexcept override { return WindowedKnnPlugin::kName; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

  private:
    FieldNames names_;
};

}  // namespace ignn
