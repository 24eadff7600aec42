// Registers the plugins when the library is loaded, for consumers that only dlopen it: trtexec --staticPlugins,
// Polygraphy --plugins, ONNX Runtime's trt_extra_plugin_lib_paths.
//
// The registry is looked up in the TensorRT library that the process has already loaded, of whatever name and major
// version, so that this library links to none.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "library.h"
#include "logging.h"

namespace {

class LibraryLogger : public nvinfer1::ILoggerFinder {
  public:
    nvinfer1::ILogger* findLogger() override { return get_logger != nullptr ? get_logger() : nullptr; }
    nvinfer1::ILogger* (*get_logger)() = nullptr;
};

LibraryLogger library_logger;
int registries = 0;

void register_with(void* library) {
    using Registry = nvinfer1::IPluginRegistry* (*)();
    const auto get_registry = reinterpret_cast<Registry>(dlsym(library, "getPluginRegistry"));
    nvinfer1::IPluginRegistry* registry = get_registry != nullptr ? get_registry() : nullptr;
    if (registry == nullptr) {
        return;
    }
    library_logger.get_logger = reinterpret_cast<nvinfer1::ILogger* (*)()>(dlsym(library, "getLogger"));
    setLoggerFinder(&library_logger);
    int32_t count = 0;
    nvinfer1::IPluginCreatorInterface* const* creators = getCreators(count);
    for (int32_t i = 0; i < count; ++i) {
        registry->registerCreator(*creators[i], "ignn");
    }
    ++registries;
}

// TensorRT, its runtime for version-compatible engines, TensorRT-RTX.
constexpr const char* kLibraries[] = {"libnvinfer.so", "libnvinfer_lean.so", "libtensorrt_rtx.so"};

int visit(dl_phdr_info* info, size_t, void*) {
    if (std::none_of(std::begin(kLibraries), std::end(kLibraries),
                     [&](const char* name) { return std::strstr(info->dlpi_name, name) != nullptr; })) {
        return 0;
    }
    void* library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    if (library != nullptr) {
        register_with(library);
        dlclose(library);
    }
    return 0;
}

[[gnu::constructor]] void register_plugins() {
    dl_iterate_phdr(visit, nullptr);
    if (registries == 0) {
        std::fprintf(stderr,
                     "ignn: no TensorRT library (libnvinfer.so, libnvinfer_lean.so or libtensorrt_rtx.so) is loaded in "
                     "this process, so the "
                     "plugins are not registered; load TensorRT before this library\n");
    }
}

}  // namespace
