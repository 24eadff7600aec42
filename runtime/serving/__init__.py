"""Past one process: what NVIDIA Triton runs (repository, server, model), and a client of it (remote)."""
