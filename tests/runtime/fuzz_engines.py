"""Cases of `fuzz.py` about engines: the cache's files, engines that are given, and ONNX files on the way to an engine.

CUDA and TensorRT are the fakes of `fake_cuda`, which refuse what cannot be read, as TensorRT does. What they cannot
refuse is ours to find: an engine that is whole, but of another network, another size, or sealed with a right checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fake_cuda import Machine, make_engine
from fake_drivers import PACKAGES, library, modules
from numpy.typing import NDArray

from runtime import SuperResolver
from runtime.backends import BackendMemoryError, cuda, cuda_pycuda, pixels, trt
from runtime.backends.engine_build import BuildRequest
from runtime.backends.engine_cache import MAGIC
from runtime.backends.trt import TrtBackend

Mutate = Callable[[bytes, random.Random], bytes]

GPUS = ["Fake 3000", "Fake 3000", "../../Fake", "F" * 300, "\0", "Ümlaut\n"]

HEADERS = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"key": 1}',
    b'{"key": {}, "sha256": []}',
    b"\xff",
]

LIES: list[dict[str, object]] = [
    {},
    {"scale": 1},
    {"scale": 3},
    {"scale": 99},
    {"tensors": ()},
    {"tensors": ("lr",)},
    {"tensors": ("lr", "lr")},
    {"tensors": ("lr", "sr", "mask")},
    {"inputs": ()},
    {"inputs": ("lr", "sr")},
    {"type": "half"},
    {"rank": 0},
    {"rank": 3},
]


def _install(rng: random.Random, folder: Path) -> Machine:
    """A machine with a way to CUDA and TensorRT, whose builds give the fake's engine; with pixel kernels or not."""
    machine = Machine()
    machine.gpu = rng.choice(GPUS)
    plugin = folder / rng.choice(["good.so", "none.so"])
    if plugin.name == "good.so":
        plugin.write_bytes(b"")
    os.environ["IGNN_PLUGIN"] = str(plugin)
    sys.modules.update(modules(machine, rng.choice(PACKAGES)))
    sys.modules["tensorrt"] = machine.tensorrt()
    cuda.open_device.cache_clear()

    def build(model: bytes, request: BuildRequest, output: Path, *, source: str) -> None:
        profile = request.profile
        output.write_bytes(make_engine(machine.gpu, (profile.minimum, profile.optimum, profile.maximum)))

    trt.build_engine = build
    cuda_pycuda.load_library = lambda: library(machine)
    pixels.PixelKernels = machine.pixel_kernels()
    machine.capture_fails = rng.random() < 0.2
    return machine


def _lying_engine(rng: random.Random, gpu: str, mutate: Mutate) -> bytes:
    """An engine with a lie or some damage in it; sizes may be any."""
    side = rng.choice([-1, 0, 1, 7, 256, 10**12])
    sizes = rng.choice([((1, 1, 1), (1, 256, 256), (1, 256, 256)), ((side,) * 3, (1, side, side), (1, 256, side))])
    content = make_engine(gpu, sizes, **rng.choice(LIES))
    return mutate(content, rng) if rng.random() < 0.5 else content


def _image(rng: random.Random) -> NDArray[np.uint8]:
    shape = (rng.choice([1, 2, 30, 257]), rng.choice([1, 3, 40, 300]), 3)
    return np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, shape, np.uint8)


def _check(found: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    if not np.array_equal(found, image.repeat(2, 0).repeat(2, 1)):
        raise AssertionError(f"a wrong picture of {image.shape}")


def fuzz_cache(rng: random.Random, folder: Path, model: Path, mutate: Mutate) -> None:
    """A file of the cache, damaged or hostile: the engine is built again, or, if it is sealed, refused with a word."""
    machine = _install(rng, folder)
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    os.environ["IGNN_CACHE"] = str(cache)
    image, tile = _image(rng), rng.choice([None, "auto", 8, 64])
    _check(SuperResolver(model, backend="tensorrt", tile=tile)(image), image)
    sealed = rng.random() < 0.5
    for path in cache.iterdir():
        content = path.read_bytes()
        header, _, engine = content.removeprefix(MAGIC).partition(b"\n")
        other = _lying_engine(rng, machine.gpu, mutate)
        if sealed:
            facts = json.loads(header) | {"sha256": hashlib.sha256(other).hexdigest()}
            path.write_bytes(MAGIC + json.dumps(facts).encode() + b"\n" + other)
            continue
        match rng.randrange(4):
            case 0:
                path.write_bytes(mutate(content, rng))
            case 1:
                path.write_bytes(MAGIC + rng.choice(HEADERS) + rng.choice([b"", b"\n"]) + engine)
            case 2:
                path.write_bytes(MAGIC + header + b"\n" + other)
            case 3:
                path.unlink()
                path.mkdir()
    if sealed and rng.random() < 0.3:
        machine.memory = machine.used + rng.choice([0, 10_000, 1_000_000])
    resolver = SuperResolver(model, backend="tensorrt", tile=tile)
    try:
        _check(resolver(image), image)
    except Exception:
        if not sealed:
            raise AssertionError("a damaged file of the cache was not built again") from None
        raise
    finally:
        if machine.contexts.stack:
            raise AssertionError("a CUDA context stays current")


def fuzz_given_engine(rng: random.Random, folder: Path, model: bytes, mutate: Mutate) -> None:
    """An engine file given by hand, damaged or of something else."""
    machine = _install(rng, folder)
    content = _lying_engine(rng, machine.gpu, mutate)
    backend = TrtBackend(model, source="m.onnx", flavor="tensorrt", engine=content)
    for _ in range(3):
        image = _image(rng)
        as_bytes = backend.takes_bytes and rng.random() < 0.5
        lr = image[None] if as_bytes else np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
        try:
            found = backend.run(lr)[0]
        except BackendMemoryError:  # the resolver's to mend
            continue
        _check(found if as_bytes else found.transpose(1, 2, 0), image)


def fuzz_engine_model(rng: random.Random, folder: Path, model: bytes, mutate: Mutate) -> None:
    """A damaged ONNX file, of which an engine is to be built; the engine itself is right for scale 2."""
    _install(rng, folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    os.environ["IGNN_CACHE"] = str(folder / "cache")
    path = folder / "damaged.onnx"
    path.write_bytes(mutate(model, rng))
    image = _image(rng)
    _check(SuperResolver(path, backend="tensorrt", tile=rng.choice([None, "auto", 8]))(image), image)
