"""Ask how much memory is free: on the host, within this process's limits, and on an NVIDIA device."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

UNKNOWN = 2 << 30
"""Bytes assumed free where the system does not say."""

CGROUPS = Path("/sys/fs/cgroup")
"""Where the system shows control groups: version 2 itself, version 1 with a folder for each controller."""

OWN_GROUPS = Path("/proc/self/cgroup")
"""Where Linux says which control groups this process is in."""

# What ONNX Runtime, OpenVINO and CUDA say when memory ran out: there is no error code that survives to Python.
_MEMORY_WORDS = (
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "bfcarena",
    "cannot allocate",
)


def says_no_memory(error: Exception) -> bool:
    """Return whether a runtime's error says that memory ran out."""
    text = str(error).lower()
    return any(words in text for words in _MEMORY_WORDS)


def free_host_memory() -> int:
    """Return how many bytes this process can still take without swapping.

    It is the least of what the system, the control group and the limit of the address space leave.
    """
    candidates = [_system(), _cgroup(), _address_space()]
    return min((value for value in candidates if value is not None), default=UNKNOWN)


def free_device_memory(device: int = 0) -> int:
    """Return the free bytes of NVIDIA device `device`, from `nvidia-smi`, which ships with the driver."""
    free = _device_memory("free", device)
    return UNKNOWN if free is None else free


def total_device_memory(device: int = 0) -> int | None:
    """Return the bytes of memory of NVIDIA device `device`; None where `nvidia-smi` does not say."""
    return _device_memory("total", device)


def _device_memory(which: str, device: int) -> int | None:
    import subprocess  # only where there is a device to ask: an import of the package stays light

    command = ["nvidia-smi", f"--id={device}", f"--query-gpu=memory.{which}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return int(answer.stdout.strip()) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def peak_memory() -> int:
    """Return the most bytes of resident memory that this process has had so far."""
    peak = _status("VmHWM:")  # ru_maxrss begins, on Linux, at what the process that forked this one held
    if peak is not None:
        return peak
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_memory() -> int:
    """Return the bytes of resident memory of this process; the peak where the system does not say."""
    return _status("VmRSS:") or peak_memory()


def hold_no_freed_memory() -> None:
    """Have the C library give the system back whatever is freed from now on, where it is one that can.

    A process that answers requests from changing threads would otherwise keep, for each, what its largest one took.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
        if set_option is not None:
            set_option(-8, 2)  # M_ARENA_MAX
            set_option(-1, 128 << 10)  # M_TRIM_THRESHOLD: its start value, but no longer growing


def _status(field: str) -> int | None:
    """Return an entry of this process's status in bytes; None on other systems than Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def return_freed_memory() -> None:
    """Give the system back what the C library keeps of freed memory, where it is one that can."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def _system() -> int | None:
    if sys.platform == "win32":
        return _windows()
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    try:
        # macOS does not say what is available; half of what is there is a safe claim.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (OSError, ValueError):
        return None


def _cgroup() -> int | None:
    """Return the bytes that the control groups of this process leave, its own and those above it."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in controllers.split(","):
            root, names = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        own = root / path.lstrip("/")
        # In a container the path may be that of the machine outside: what is not there is passed over.
        for group in (own, *own.parents):
            if group.is_relative_to(root):
                left.append(_left_in(group, *names))
    return min((value for value in left if value is not None), default=None)


def _left_in(group: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Return the bytes that one control group leaves; files read long ago are free: the system drops them first."""
    try:
        free = int((group / limit).read_text()) - int((group / used).read_text())
        stat = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # absent, or "max"
        return None
    return max(0, free + next((int(line.split()[1]) for line in stat if line.startswith(reclaimable)), 0))


def _address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        used = 0
    return max(0, limit - used)


def _windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "page", "free_page", "virtual", "free_virtual", "x")
            ),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - the attribute exists on Windows only
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
