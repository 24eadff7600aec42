// Settings of the emulated GPU, for the tests that load the kernels built for the host.
#include "../../../plugins/kernels/device.h"

extern "C" void set_shared_memory(size_t bytes) { emulation::shared_limit() = bytes; }
