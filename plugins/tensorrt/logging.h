// Messages to TensorRT's logger, or to stderr where the loader gave none.
#pragma once

#include <NvInferRuntime.h>

namespace ignn {

void set_logger_finder(nvinfer1::ILoggerFinder* finder);

// Logs an error as "ignn::<op>: <message>", printf-style.
[[gnu::format(printf, 2, 3)]] void log_error(const char* op, const char* format, ...);

}  // namespace ignn
