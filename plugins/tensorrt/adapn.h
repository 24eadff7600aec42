// What the plugins KeyStatistics and AdaPNGather share: attributes, sizes, and what they ask of the keys' statistics.
#pragma once

#include <vector>

#include "graph_plugin.h"

namespace ignn {

struct AdaPN {
    using Sizes = IgnnFeatures;

    int32_t scale;
    float eps;

    std::vector<nvinfer1::PluginField> fields() const;
    void write_timing_id(char* text, size_t size) const;
    Sizes sizes(const nvinfer1::PluginTensorDesc& features, const nvinfer1::Dims& dims) const;
    static size_t workspace(const Sizes&) { return 0; }

  protected:
    bool read(const char* op, const nvinfer1::PluginFieldCollection& fields);
    static bool takes_type(const char* op, nvinfer1::DataType features);
    static void log_refusal(const char* op, const char* refusal, const Sizes& sizes);
    // Patches of the key grid along `features` pixels.
    const nvinfer1::IDimensionExpr* keys(const nvinfer1::IDimensionExpr* features,
                                         nvinfer1::IExprBuilder& builder) const;
};

}  // namespace ignn
