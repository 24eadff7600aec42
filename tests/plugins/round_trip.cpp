// Clones plugins, serialises the clones and makes plugins of what was written; prints the results, one line a plugin.
//
//   round_trip LIBRARY              takes the creators from the plugin library itself
//   round_trip LIBRARY TENSORRT     loads the library by the registry of that TensorRT library
//   round_trip LIBRARY TENSORRT INIT    first loads INIT by dlopen and by the registry
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

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

// The creators that a library of plugins names.
std::vector<IPluginCreatorInterface*> creators_of(const char* path, Finder& finder) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::printf("%s\n", dlerror());
        return {};
    }
    reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&finder);
    int32_t count = 0;
    auto* const* creators =
        reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"))(count);
    return {creators, creators + count};
}

IPluginRegistry* registry_of(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
        std::printf("%s\n", dlerror());
        return nullptr;
    }
    return reinterpret_cast<IPluginRegistry* (*)()>(dlsym(library, "getPluginRegistry"))();
}

std::vector<IPluginCreatorInterface*> all_creators(const IPluginRegistry& registry) {
    int32_t count = 0;
    auto* const* creators = registry.getAllCreators(&count);
    return {creators, creators + count};
}

// Our creators in the registry, in the order of their names.
std::vector<IPluginCreatorInterface*> registered(IPluginRegistry& registry) {
    std::vector<IPluginCreatorInterface*> found;
    for (const char* name : {"WindowedKnn", "KeyStatistics", "AdaPNGather"}) {
        IPluginCreatorInterface* creator = registry.getCreator(name, "1", "ignn");
        if (creator != nullptr) {
            found.push_back(creator);
        }
    }
    return found;
}

}  // namespace

int main(int argc, char** argv) {
    Finder finder;
    std::vector<IPluginCreatorInterface*> creators;
    IPluginRegistry* registry = argc > 2 ? registry_of(argv[2]) : nullptr;
    IPluginRegistry::PluginLibraryHandle handle = nullptr;
    if (argc > 3) {
        void* init = dlopen(argv[3], RTLD_NOW | RTLD_LOCAL);
        std::printf("init: %zu creators\n", registered(*registry).size());
        std::printf("loadLibrary %s\n", registry->loadLibrary(argv[3]) != nullptr ? "took it" : "refused it");
        dlclose(init);
        creators = registered(*registry);
    } else if (registry != nullptr) {
        const size_t before = all_creators(*registry).size();
        handle = registry->loadLibrary(argv[1]);
        std::printf("loaded %d, %zu creators more\n", handle != nullptr, all_creators(*registry).size() - before);
        creators = registered(*registry);
    } else {
        creators = creators_of(argv[1], finder);
    }
    int32_t k = 7, window = 21, scale = 3;
    float eps = 0.25F;
    const PluginField given[] = {{"eps", &eps, PluginFieldType::kFLOAT32, 1},
                                 {"scale", &scale, PluginFieldType::kINT32, 1},
                                 {"window", &window, PluginFieldType::kINT32, 1},
                                 {"k", &k, PluginFieldType::kINT32, 1}};
    const PluginFieldCollection collection{4, given};
    for (IPluginCreatorInterface* interface : creators) {
        auto* creator = static_cast<IPluginCreatorV3One*>(interface);
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
        auto* build = static_cast<IPluginV3OneBuild*>(again->getCapabilityInterface(PluginCapabilityType::kBUILD));
        std::printf("timed as %s\n", build->getTimingCacheID());
        IPluginV3* attached = runtime->attachToContext(nullptr);
        std::printf("attached%s\n", text(fields_of(attached)).c_str());
        delete attached;
        delete again;
        const PluginFieldCollection none{0, nullptr};
        if (creator->createPlugin("x", &none, TensorRTPhase::kBUILD) != nullptr) {
            std::printf("made of nothing\n");
        }
    }
    if (handle != nullptr) {
        registry->deregisterLibrary(handle);
        std::printf("after deregisterLibrary: %zu creators\n", registered(*registry).size());
    }
    return 0;
}
