#include "library.h"

#include "adapn_gather.h"
#include "graph_plugin.h"
#include "key_statistics.h"
#include "logging.h"
#include "windowed_knn.h"

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { ignn::set_logger_finder(finder); }

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static ignn::GraphPluginCreator<ignn::WindowedKnn> windowed_knn;
    static ignn::GraphPluginCreator<ignn::KeyStatistics> key_statistics;
    static ignn::GraphPluginCreator<ignn::AdaPNGather> adapn_gather;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&windowed_knn, &key_statistics, &adapn_gather};
    count = 3;
    return creators;
}
