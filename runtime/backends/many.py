"""One network on several devices, as one backend: `SuperResolver(devices="all")`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from ..errors import BackendUnavailableError, UsageError
from ..metadata import ModelMetadata
from . import Backend, Box, Values
from .gpus import list_gpus

AHEAD = 3
"""How many inputs a device holds more than it has given results: what `Backend.run_all` allows."""

Devices = Sequence[int] | Literal["all"]

Number = TypeVar("Number")


def device_numbers(devices: Devices) -> list[int]:
    """Return the indices of the GPUs that `devices` names.

    Raises:
        UsageError: neither "all" nor different whole numbers from 0.
        BackendUnavailableError: "all", and there is no GPU.
    """
    if isinstance(devices, str) and devices == "all":
        count = len(list_gpus())
        if not count:
            raise BackendUnavailableError("There is no NVIDIA GPU here: nvidia-smi lists none. Leave out devices.")
        return list(range(count))
    numbers = [] if isinstance(devices, str) else list(devices)
    if not numbers or len(set(numbers)) < len(numbers) or not all(type(each) is int and each >= 0 for each in numbers):
        raise UsageError(
            f"Invalid devices ({devices!r}). 'all' or different whole numbers from 0 are supported; `ignn doctor` "
            "lists GPUs."
        )
    return numbers


def open_many(numbers: Sequence[Number], open_one: Callable[[Number], Backend]) -> Backend:
    """Open a network on each device; return one backend, those open already closed where a later one fails."""
    opened: list[Backend] = []
    try:
        for number in numbers:
            opened.append(open_one(number))
    except BaseException:
        for backend in opened:
            backend.close()
        raise
    return opened[0] if len(opened) == 1 else ManyDevices(opened)


class ManyDevices:
    """Deals inputs out to backends of one network in turn, and gives results in the inputs' order.

    Args:
        backends: at least two, alike but for their devices.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = list(backends)
        self._idle: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        for backend in self._backends:
            self._idle.put(backend)

    @property
    def metadata(self) -> ModelMetadata:
        """What the runtime knows about the network."""
        return self._backends[0].metadata

    @property
    def description(self) -> str:
        """The runtime and the devices."""
        return "; ".join(backend.description for backend in self._backends)

    @property
    def on_host(self) -> bool:
        """Whether the network runs in the host's memory."""
        return self._backends[0].on_host

    @property
    def largest_input(self) -> tuple[int, int] | None:
        """See `Backend.largest_input`: all have one model, or one engine."""
        return self._backends[0].largest_input

    @property
    def takes_bytes(self) -> bool:
        """Whether every backend takes uint8."""
        return all(backend.takes_bytes for backend in self._backends)

    stages = None

    def run_kept(self, lr: Values, kept: Box) -> Values:
        """See `Backend.run_kept`: all of it."""
        return self.run(lr)

    def run(self, lr: Values) -> Values:
        """Run it on a device that is idle; see `Backend.run`."""
        backend = self._idle.get()
        try:
            return backend.run(lr)
        finally:
            self._idle.put(backend)

    def run_all(self, inputs: Iterable[Values]) -> Generator[Values, None, None]:
        """Run each, in order, on all devices at a time; at most three inputs a device are taken ahead."""
        lines = [_Line(backend) for backend in self._backends]
        given = taken = 0
        source = iter(inputs)
        exhausted = False
        try:
            while True:
                while not exhausted and taken - given < AHEAD * len(lines):
                    try:
                        value = next(source)
                    except StopIteration:
                        exhausted = True
                        for line in lines:
                            line.end()
                        break
                    lines[taken % len(lines)].put(value)
                    del value
                    taken += 1
                if given == taken:
                    return
                yield lines[given % len(lines)].get()
                given += 1
        finally:
            for line in lines:
                line.close()

    def cancel(self) -> None:
        """Have all runs under way fail; see `Backend.cancel`."""
        for backend in self._backends:
            backend.cancel()

    def free_memory(self) -> int:
        """Return the bytes that are free on the device that has least."""
        return min(backend.free_memory() for backend in self._backends)

    def close(self) -> None:
        """Close every backend."""
        for backend in self._backends:
            backend.close()


class _Line:
    """A thread that runs one backend: inputs go in, results come out in their order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._inputs: queue.SimpleQueue[Values | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Values | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ignn-device", daemon=True)
        self._thread.start()

    def put(self, value: Values) -> None:
        """Hand over an input."""
        self._inputs.put(value)

    def end(self) -> None:
        """Say that no input follows."""
        self._inputs.put(None)

    def get(self) -> Values:
        """Wait for the next result.

        Raises:
            BackendMemoryError: and whatever else the backend raised; nothing follows it.
        """
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Drop what has not begun, and wait for the run under way."""
        try:
            while True:
                self._inputs.get_nowait()
        except queue.Empty:
            self._inputs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            for result in self._backend.run_all(self._taken()):
                self._results.put(result)
        except BaseException as error:
            self._results.put(error)

    def _taken(self) -> Iterator[Values]:
        while (value := self._inputs.get()) is not None:
            yield value
