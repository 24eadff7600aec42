"""`ignn serve`: the networks behind NVIDIA Triton, or a model repository for one elsewhere."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..errors import ServerError, UsageError
from ..models import bundled_models
from ..serving.limits import Limits
from ..serving.repository import Service, write_repository
from ..serving.server import Ports, find_program, running, server_command
from .interrupt import interrupted_by_sigterm


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    result = argparse.ArgumentParser(
        prog="ignn serve",
        description="Serve networks by NVIDIA Triton: arrays and files, by HTTP and gRPC.",
        epilog="Whoever reaches the server may also unload its models: it listens on this machine alone by default.",
    )
    result.add_argument(
        "--model", action="append", metavar="M", help="bundled name or .onnx file; default: all bundled"
    )
    result.add_argument(
        "--engine", type=Path, metavar="PLAN", help="TensorRT engine of the first model, served as well"
    )
    result.add_argument(
        "--plugin",
        type=Path,
        metavar="LIB",
        help="libignn_plugin_static_init.so, for an engine without the plugin inside",
    )
    result.add_argument("--only-repository", type=Path, metavar="FOLDER", help="write the model repository, and end")
    where = result.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    where.add_argument("--http-port", type=int, default=8000, help="default %(default)s")
    where.add_argument("--grpc-port", type=int, default=8001, help="default %(default)s")
    where.add_argument("--metrics-port", type=int, default=8002, help="default %(default)s")
    how = result.add_argument_group("how")
    how.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default %(default)s")
    how.add_argument("--instances", type=int, default=1, help="processes of each model, on each GPU (default 1)")
    how.add_argument("--threads", type=int, help="CPU threads of one process (default: all cores)")
    limits, default = result.add_argument_group("limits"), Limits()
    limits.add_argument("--max-pixels", type=int, default=default.max_pixels, help="of an input (default %(default)s)")
    limits.add_argument("--max-bytes", type=int, default=default.max_bytes, help="of an input (default %(default)s)")
    limits.add_argument("--queue", type=int, default=default.queue, help="requests that wait (default %(default)s)")
    limits.add_argument(
        "--timeout", type=int, default=default.timeout_seconds, help="seconds in the queue (%(default)s)"
    )
    return result


def main(argv: list[str]) -> int:
    """Serve until a signal comes, or write a repository; return the exit code."""
    arguments = parser().parse_args(argv)
    limits = Limits(arguments.max_pixels, arguments.max_bytes, arguments.queue, arguments.timeout)
    service = Service(limits, arguments.device, arguments.instances, arguments.threads)
    models = arguments.model or [model.name for model in bundled_models()]
    if arguments.only_repository is not None:
        names = write_repository(arguments.only_repository, models, service, engine=arguments.engine)
        sys.stdout.write(f"{arguments.only_repository}: {', '.join(names)}\n")
        return 0
    if arguments.plugin is not None and not arguments.plugin.is_file():
        raise UsageError(f"There is no library {arguments.plugin}. Build it, or leave out --plugin.")
    program = find_program()
    ports = Ports(arguments.host, arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    with interrupted_by_sigterm(), tempfile.TemporaryDirectory(prefix="ignn-serve-") as temporary:
        repository, work = Path(temporary, "models"), Path(temporary, "server")
        work.mkdir()
        names = write_repository(repository, models, service, engine=arguments.engine)
        command = server_command(repository, ports, plugin=arguments.plugin)
        try:
            with running(program, command, work, ports) as process:
                sys.stdout.write(
                    f"serving {', '.join(names)}\n  grpc://{ports.host}:{ports.grpc}\n  http://{ports.host}:{ports.http}\n"
                    f"  metrics: http://{ports.host}:{ports.metrics}/metrics\n"
                )
                sys.stdout.flush()
                code = process.wait()
        except KeyboardInterrupt:
            return 0
    raise ServerError(f"tritonserver ended by itself, with {code}. Start it again.")
