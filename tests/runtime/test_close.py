"""What a resolver holds is given back: by `close()`, or by whichever thread drops it. CUDA and TensorRT are fakes."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import Machine
from fake_drivers import Handle, bindings
from PIL import Image
from small_networks import ModelFactory

from runtime import SuperResolver
from runtime.backends import cuda
from runtime.cli import main
from runtime.commands.ui import Models
from runtime.errors import ClosedError, IgnnError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

IMAGE = np.full((20, 20, 3), 9, np.uint8)


def used(model: Path) -> SuperResolver:
    """A resolver that holds an engine, memory, streams and the graphs of three lanes."""
    resolver = SuperResolver(model, backend="tensorrt")
    for _ in resolver.network.backend.run_all([IMAGE[None]] * 6):
        pass
    return resolver


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for ever"


def test_a_closed_resolver(x2_model: Path) -> None:
    with SuperResolver(x2_model) as resolver:
        large = resolver(IMAGE)
        session = weakref.ref(vars(resolver.network.backend)["_session"])
    assert session() is None
    assert large.shape == (40, 40, 3)
    for call in (lambda: resolver(IMAGE), lambda: resolver.super_resolve(IMAGE), lambda: next(resolver.map([IMAGE]))):
        with pytest.raises(ClosedError, match=r"was closed\. Open it again: SuperResolver"):
            call()
    resolver.close()
    assert resolver.scale == 2
    assert resolver.description.startswith("ONNX Runtime")


def test_nothing_is_left_on_the_device(machine: Machine, built: list, x2_model: Path) -> None:
    resolver = used(x2_model)
    assert machine.live["stream"] == machine.live["event"] == machine.live["graph"] == 3
    assert machine.used > 0
    assert machine.engines == 2  # and its context
    for _ in range(2):
        resolver.close()
        assert not machine.left
    with pytest.raises(ClosedError):
        resolver(IMAGE)
    with SuperResolver(x2_model, backend="tensorrt") as again:
        np.testing.assert_array_equal(again(IMAGE), IMAGE.repeat(2, 0).repeat(2, 1))
    assert not machine.left
    assert machine.contexts.retained == 1  # the primary context, by all of them


def test_a_resolver_that_another_thread_drops(machine: Machine, built: list, x2_model: Path) -> None:
    held = [used(x2_model)]
    assert machine.left
    in_a_thread(held.clear)
    assert not machine.left


def test_a_resolver_that_the_garbage_collector_finds(machine: Machine, built: list, x2_model: Path) -> None:
    circle: list = [used(x2_model)]
    circle.append(circle)
    del circle
    assert machine.left
    in_a_thread(gc.collect)
    assert not machine.left


def test_a_resolver_that_is_dropped_while_a_graph_is_captured(
    machine: Machine, built: list, x2_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freeing would end the capture: it waits until the graph is whole."""
    held = [used(x2_model)]
    graphs = len(machine.graphs)
    begin = machine.begin_capture

    def begin_and_drop() -> int:
        begin()
        held.clear()
        assert machine.used > 0
        return 0

    monkeypatch.setattr(machine, "begin_capture", begin_and_drop)
    other = used(x2_model)
    assert len(machine.graphs) == graphs + 3
    other.close()
    assert not machine.left


def test_close_waits_for_the_run_under_way(machine: Machine, built: list, x2_model: Path) -> None:
    resolver = used(x2_model)
    reached, go_on, results = threading.Event(), threading.Event(), []

    def inputs() -> object:
        yield IMAGE[None]
        reached.set()
        assert go_on.wait(20)
        yield IMAGE[None]

    runner = threading.Thread(target=lambda: results.extend(resolver.network.backend.run_all(inputs())))
    runner.start()
    assert reached.wait(20)
    closer = threading.Thread(target=resolver.close)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    go_on.set()
    runner.join(20)
    closer.join(20)
    assert len(results) == 2
    assert not machine.left


def test_close_after_results_that_were_not_taken(machine: Machine, built: list, x2_model: Path) -> None:
    """As after an error while a stream is written: the results left in the middle hold the network."""

    def work() -> None:
        resolver = used(x2_model)
        results = resolver.network.backend.run_all([IMAGE[None]] * 9)
        next(results)
        resolver.close()
        assert not machine.left
        with pytest.raises(ClosedError):
            next(results)
        ended.append(True)

    ended: list = []
    in_a_thread(work)
    assert ended


def test_the_command_line_frees_its_resolver(
    machine: Machine, built: list, x2_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "in.png")
    options = ["--model", str(x2_model), "--backend", "tensorrt"]
    assert main(["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), *options]) == 0
    assert machine.events
    assert not machine.left
    assert main(["upscale", str(tmp_path / "none.png"), "-o", str(tmp_path / "out.png"), *options]) == 1
    assert not machine.left
    assert "none.png" in capsys.readouterr().err


def test_the_page_frees_its_resolvers(model_file: ModelFactory) -> None:
    path = model_file(2)
    with Models([path]) as models:
        resolver = models[path.stem]
        resolver(IMAGE)
    with pytest.raises(ClosedError):
        resolver(IMAGE)


def test_the_page_does_not_wait_for_a_picture_under_way(model_file: ModelFactory) -> None:
    path, failed = model_file(2, {"convolutions": 200, "width": 32}), []
    with Models([path]) as models:
        backend = models[path.stem].network.backend
        lr = np.zeros((1, 3, 600, 600), np.float32)  # minutes of work

        def enlarge() -> None:
            try:
                backend.run(lr)
            except IgnnError as error:
                failed.append(error)

        thread = threading.Thread(target=enlarge, daemon=True)
        thread.start()
        time.sleep(0.3)
        started = time.monotonic()
    assert time.monotonic() - started < 20
    thread.join(20)
    assert failed


@pytest.mark.parametrize("machine", ["cuda-bindings"], indirect=True)
def test_a_pycuda_that_cannot_be_imported(
    machine: Machine, built: list, x2_model: Path, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("")
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('libcurand.so.10: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.delitem(sys.modules, "pycuda", raising=False)
    used(x2_model)
    assert "pycuda cannot be imported (libcurand.so.10: cannot open): CUDA is called through cuda-b" in caplog.text


@pytest.mark.parametrize("machine", ["cuda-bindings"], indirect=True)
def test_what_cuda_bindings_is_called_with(machine: Machine, built: list, x2_model: Path, monkeypatch) -> None:
    """Each call once more, to the real package: it converts its arguments before it looks for the driver's library."""
    with used(x2_model) as resolver:
        resolver(IMAGE)  # asks for the free memory
    fake, calls = set(vars(bindings(Machine()))), dict(machine.calls)
    assert {name for name in fake if name.startswith("cu")} == set(calls)
    monkeypatch.delitem(sys.modules, "cuda.bindings.driver")
    real = pytest.importorskip("cuda.bindings.driver")
    try:
        real.cuInit(0)
    except RuntimeError:
        pass
    else:
        pytest.skip("there is a CUDA device, which these calls would reach")

    def as_real(value: Any) -> Any:
        if isinstance(value, Handle):
            return getattr(real, value.kind)(int(value))
        kind = {"Capability": "CUdevice_attribute", "CaptureMode": "CUstreamCaptureMode"}.get(type(value).__name__)
        return value if kind is None else getattr(getattr(real, kind), value.name)

    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match=r"driver library|libcuda"):
            getattr(real, name)(*map(as_real, arguments))
    assert real.CUresult.CUDA_ERROR_OUT_OF_MEMORY.value == 2
    assert real.CUstream_flags.CU_STREAM_NON_BLOCKING.value == 1
    assert real.CUevent_flags.CU_EVENT_DISABLE_TIMING.value == 2
    assert isinstance(cuda.find_driver(), cuda.BindingsDriver)
