// Calls a plugin's own enqueue on a GPU, with no TensorRT in the process. Tensors are read from files and written to
// files.
//
//   plugin_runner LIBRARY WindowedKnn N C H W TYPE LAYOUT K WINDOW SCALE QUERY KEY INDEX EDGE
//   plugin_runner LIBRARY KeyStatistics N C H W TYPE LAYOUT SCALE EPS FEATURES MEAN STD
//   plugin_runner LIBRARY AdaPNGather N C H W TYPE LAYOUT SCALE EPS FEATURES MEAN STD INDEX OUTPUT
//
// TYPE is fp32 or fp16, LAYOUT linear or channels_last; the files hold raw tensors, little endian. Exit status: 0; 1
// with a message; 2 where there is no usable GPU.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace {

struct NoDevice : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
    }
}

struct DeviceFree {
    void operator()(void* pointer) const { cudaFree(pointer); }
};
using DeviceMemory = std::unique_ptr<void, DeviceFree>;

DeviceMemory allocate(size_t bytes) {
    void* pointer = nullptr;
    check(cudaMalloc(&pointer, bytes > 0 ? bytes : 1), "cudaMalloc");
    return DeviceMemory(pointer);
}

std::vector<char> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw std::runtime_error("cannot read " + path);
    }
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Tensor {
    PluginTensorDesc desc{};
    std::string path;
    DeviceMemory memory;

    size_t bytes() const {
        size_t count = desc.type == DataType::kHALF ? 2 : 4;
        for (int i = 0; i < desc.dims.nbDims; ++i) {
            count *= static_cast<size_t>(desc.dims.d[i]);
        }
        return count;
    }
};

Tensor tensor(const std::vector<int64_t>& dims, DataType type, TensorFormat format, const std::string& path) {
    Tensor result;
    result.desc.dims.nbDims = static_cast<int32_t>(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) {
        result.desc.dims.d[i] = dims[i];
    }
    result.desc.type = type;
    result.desc.format = format;
    result.path = path;
    return result;
}

nvinfer1::IPluginV3* create(void* library, const std::string& op, const std::vector<PluginField>& fields) {
    using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&);
    const auto get_creators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
    if (get_creators == nullptr) {
        throw std::runtime_error("the library exports no getCreators");
    }
    int32_t count = 0;
    auto* const* creators = get_creators(count);
    for (int32_t i = 0; i < count; ++i) {
        auto* creator = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]);
        if (op == creator->getPluginName()) {
            const nvinfer1::PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
            auto* plugin = creator->createPlugin(op.c_str(), &collection, nvinfer1::TensorRTPhase::kRUNTIME);
            if (plugin == nullptr) {
                throw std::runtime_error("the plugin refused its attributes");
            }
            return plugin;
        }
    }
    throw std::runtime_error("the library has no plugin " + op);
}

void run(nvinfer1::IPluginV3& plugin, std::vector<Tensor>& inputs, std::vector<Tensor>& outputs) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        throw NoDevice("no CUDA device");
    }
    std::vector<PluginTensorDesc> input_descs, output_descs;
    std::vector<nvinfer1::DynamicPluginTensorDesc> tensors;
    std::vector<const void*> input_data;
    std::vector<void*> output_data;
    const auto describe = [&](const Tensor& t) { tensors.push_back({t.desc, t.desc.dims, t.desc.dims, t.desc.dims}); };
    for (Tensor& input : inputs) {
        const std::vector<char> content = read_file(input.path);
        if (content.size() != input.bytes()) {
            throw std::runtime_error(input.path + " holds " + std::to_string(content.size()) + " bytes; it must hold " +
                                     std::to_string(input.bytes()));
        }
        input.memory = allocate(content.size());
        check(cudaMemcpy(input.memory.get(), content.data(), content.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
        input_descs.push_back(input.desc);
        input_data.push_back(input.memory.get());
        describe(input);
    }
    for (Tensor& output : outputs) {
        output.memory = allocate(output.bytes());
        output_descs.push_back(output.desc);
        output_data.push_back(output.memory.get());
        describe(output);
    }
    auto* build = static_cast<nvinfer1::IPluginV3OneBuild*>(
        plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
    auto* runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(
        plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
    const int32_t input_count = static_cast<int32_t>(inputs.size());
    const int32_t output_count = static_cast<int32_t>(outputs.size());
    for (int32_t position = 0; position < input_count + output_count; ++position) {
        if (!build->supportsFormatCombination(position, tensors.data(), input_count, output_count)) {
            throw std::runtime_error("the plugin does not take tensor " + std::to_string(position) +
                                     " in this type and layout");
        }
    }
    const DeviceMemory workspace =
        allocate(build->getWorkspaceSize(tensors.data(), input_count, tensors.data() + input_count, output_count));
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream), "cudaStreamCreate");
    if (runtime->enqueue(input_descs.data(), output_descs.data(), input_data.data(), output_data.data(),
                         workspace.get(), stream) != 0) {
        throw std::runtime_error("enqueue failed");
    }
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    check(cudaStreamDestroy(stream), "cudaStreamDestroy");
    for (const Tensor& output : outputs) {
        std::vector<char> content(output.bytes());
        check(cudaMemcpy(content.data(), output.memory.get(), content.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
        std::ofstream file(output.path, std::ios::binary);
        file.write(content.data(), static_cast<std::streamsize>(content.size()));
        if (!file) {
            throw std::runtime_error("cannot write " + output.path);
        }
    }
}

int run_arguments(const std::vector<std::string>& arguments) {
    const std::string& op = arguments[1];
    const bool knn = op == "WindowedKnn";
    const bool gather = op == "AdaPNGather";
    if (arguments.size() != (knn || gather ? 15U : 13U)) {
        throw std::runtime_error("wrong number of arguments for " + op);
    }
    const int64_t N = std::stoll(arguments[2]), C = std::stoll(arguments[3]);
    const int64_t H = std::stoll(arguments[4]), W = std::stoll(arguments[5]);
    const DataType type = arguments[6] == "fp16" ? DataType::kHALF : DataType::kFLOAT;
    const TensorFormat format = arguments[7] == "linear"  ? TensorFormat::kLINEAR
                                : type == DataType::kHALF ? TensorFormat::kHWC8
                                                          : TensorFormat::kHWC;
    std::vector<PluginField> fields;
    std::vector<Tensor> inputs, outputs;
    int32_t integers[3];
    float eps = 0.0F;
    if (knn) {
        const char* names[] = {"k", "window", "scale"};
        for (size_t i = 0; i < 3; ++i) {
            integers[i] = std::stoi(arguments[8 + i]);
            fields.emplace_back(names[i], &integers[i], PluginFieldType::kINT32, 1);
        }
        const int64_t k = integers[0], scale = integers[2];
        inputs.push_back(tensor({N, C, H, W}, type, format, arguments[11]));
        inputs.push_back(tensor({N, C, H / scale, W / scale}, type, format, arguments[12]));
        outputs.push_back(tensor({N, H / 2, W / 2, k}, DataType::kINT32, TensorFormat::kLINEAR, arguments[13]));
        outputs.push_back(tensor({N, k, C, H / 2, W / 2}, type, TensorFormat::kLINEAR, arguments[14]));
    } else {
        integers[0] = std::stoi(arguments[8]);
        eps = std::stof(arguments[9]);
        fields.emplace_back("scale", &integers[0], PluginFieldType::kINT32, 1);
        fields.emplace_back("eps", &eps, PluginFieldType::kFLOAT32, 1);
        const int64_t scale = integers[0];
        inputs.push_back(tensor({N, C, H, W}, type, format, arguments[10]));
        for (size_t i = 11; i < 13; ++i) {
            (gather ? inputs : outputs)
                .push_back(tensor({N, H / scale / 2, W / scale / 2, C}, DataType::kFLOAT, TensorFormat::kLINEAR,
                                  arguments[i]));
        }
        if (gather) {
            inputs.push_back(tensor({N, H / 2, W / 2}, DataType::kINT32, TensorFormat::kLINEAR, arguments[13]));
            outputs.push_back(tensor({N, C, scale * H, scale * W}, type, format, arguments[14]));
        }
    }
    void* library = dlopen(arguments[0].c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        throw std::runtime_error(dlerror());
    }
    const std::unique_ptr<nvinfer1::IPluginV3> plugin(create(library, op, fields));
    run(*plugin, inputs, outputs);
    return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        if (arguments.size() < 2) {
            throw std::runtime_error(
                "usage: plugin_runner LIBRARY WindowedKnn|KeyStatistics|AdaPNGather ... (see plugin_runner.cpp)");
        }
        return run_arguments(arguments);
    } catch (const NoDevice& error) {
        std::fprintf(stderr, "plugin_runner: %s\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "plugin_runner: %s\n", error.what());
        return EXIT_FAILURE;
    }
}
