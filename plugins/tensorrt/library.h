// The two functions by which TensorRT's registry (IPluginRegistry::loadLibrary) takes plugins from a library.
#pragma once

#include <NvInferRuntime.h>

#define IGNN_API __attribute__((visibility("default")))

extern "C" IGNN_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" IGNN_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
