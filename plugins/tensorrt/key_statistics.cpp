#include "key_statistics.h"

using nvinfer1::DataType;
using nvinfer1::DimsExprs;

namespace ignn {

bool KeyStatistics::output_types(const DataType* inputs, DataType* outputs) const {
    outputs[0] = outputs[1] = DataType::kFLOAT;
    return takes_type(kName, inputs[0]);
}

bool KeyStatistics::output_shapes(const DimsExprs* inputs, DimsExprs* outputs, nvinfer1::IExprBuilder& builder) const {
    const DimsExprs& features = inputs[0];
    if (!has_rank(kName, "features", features, 4)) {
        return false;
    }
    for (int i = 0; i < kOutputs; ++i) {
        outputs[i].nbDims = 4;
        outputs[i].d[0] = features.d[0];
        outputs[i].d[1] = keys(features.d[2], builder);
        outputs[i].d[2] = keys(features.d[3], builder);
        outputs[i].d[3] = features.d[1];
    }
    return true;
}

bool KeyStatistics::takes_format(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    return position == 0 ? takes_map(tensors[0].desc) : is_linear(tensors[position].desc, DataType::kFLOAT);
}

int KeyStatistics::run(const IgnnFeatures& sizes, const void* const* inputs, void* const* outputs, void*,
                       cudaStream_t stream) {
    return ignn_key_statistics(&sizes, inputs[0], static_cast<float*>(outputs[0]), static_cast<float*>(outputs[1]),
                               stream);
}

}  // namespace ignn
