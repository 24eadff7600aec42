#include "library.h"

#include "adapn_gather_plugin.h"
#include "logging.h"
#include "windowed_knn_plugin.h"

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { ignn::set_logger_finder(finder); }

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static ignn::WindowedKnnCreator windowed_knn;
    static ignn::AdaPNGatherCreator adapn_gather;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&windowed_knn, &adapn_gather};
    count = 2;
    return creators;
}
