// Clones plugins, serialises the clones and makes plugins of what they wrote; prints what survived, one line a plugin.
//
//   round_trip LIBRARY
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

using namespace nvinfer1;

namespace {

class Logger : public ILogger {
  public:
    void log(Severity, const char* message) noexcept override { std::printf("log %s\n", message); }
};

class Finder : public ILoggerFinder {
  public:
    ILogger* findLogger() override { return &logger; }
    Logger logger;
};

const PluginFieldCollection* fields_of(IPluginV3* plugin) {
    auto* runtime = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    return runtime->getFieldsToSerialize();
}

std::string text(const PluginFieldCollection* fields) {
    std::string result;
    for (int i = 0; i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        char number[64];
        if (field.type == PluginFieldType::kINT32) {
            std::snprintf(number, sizeof(number), "%d", *static_cast<const int32_t*>(field.data));
        } else {
            std::snprintf(number, sizeof(number), "%g", static_cast<double>(*static_cast<const float*>(field.data)));
        }
        result += std::string(" ") + field.name + "=" + number;
    }
    return result;
}

}  // namespace

int main(int, char** argv) {
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::printf("%s\n", dlerror());
        return 1;
    }
    Finder finder;
    reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&finder);
    int32_t count = 0;
    auto* const* creators =
        reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"))(count);
    int32_t k = 7, window = 21, scale = 3;
    float eps = 0.25F;
    const PluginField given[] = {{"eps", &eps, PluginFieldType::kFLOAT32, 1},
                                 {"scale", &scale, PluginFieldType::kINT32, 1},
                                 {"window", &window, PluginFieldType::kINT32, 1},
                                 {"k", &k, PluginFieldType::kINT32, 1}};
    const PluginFieldCollection collection{4, given};
    for (int32_t i = 0; i < count; ++i) {
        auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
        IPluginV3* original = creator->createPlugin("x", &collection, TensorRTPhase::kBUILD);
        fields_of(original);
        IPluginV3* copy = original->clone();
        const bool own = fields_of(copy)->fields[0].data != fields_of(original)->fields[0].data;
        delete original;
        const std::string written = text(fields_of(copy));
        IPluginV3* again = creator->createPlugin("x", fields_of(copy), TensorRTPhase::kRUNTIME);
        auto* core = static_cast<IPluginV3OneCore*>(again->getCapabilityInterface(PluginCapabilityType::kCORE));
        const bool same = written == text(fields_of(again));
        delete copy;
        std::printf("%s %s %s%s own=%d same=%d\n", core->getPluginNamespace(), core->getPluginName(),
                    core->getPluginVersion(), text(fields_of(again)).c_str(), own, same);
        auto* runtime =
            static_cast<IPluginV3OneRuntime*>(again->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        IPluginV3* attached = runtime->attachToContext(nullptr);
        std::printf("attached%s\n", text(fields_of(attached)).c_str());
        delete attached;
        delete again;
        const PluginFieldCollection none{0, nullptr};
        if (creator->createPlugin("x", &none, TensorRTPhase::kBUILD) != nullptr) {
            std::printf("made of nothing\n");
        }
    }
    return 0;
}
