#include "logging.h"

#include <cstdarg>
#include <cstdio>

namespace ignn {
namespace {
nvinfer1::ILoggerFinder* logger_finder = nullptr;
}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

void log_error(const char* op, const char* format, ...) {
    char message[512];
    int length = std::snprintf(message, sizeof(message), "ignn::%s: ", op);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message + length, sizeof(message) - static_cast<size_t>(length), format, arguments);
    va_end(arguments);
    nvinfer1::ILogger* logger = logger_finder != nullptr ? logger_finder->findLogger() : nullptr;
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message);
    } else {
        std::fprintf(stderr, "%s\n", message);
    }
}

}  // namespace ignn
