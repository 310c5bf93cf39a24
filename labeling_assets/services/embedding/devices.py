"""Devices: which there are, which one a model runs on and in which number type, and how much memory it may take.

GPUs are counted by asking the CUDA driver, which needs no library of ours and respects CUDA_VISIBLE_DEVICES. Whether a
library can use them is for that library to say: a CPU build of torch beside a GPU is common. What is said here holds
for every family of embedders; what only one runtime knows, such as its peak memory, is with the model.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labeling_assets.errors import ConfigurationError

CPU = "cpu"
BATCH_SIZE_CPU, BATCH_SIZE_GPU = 16, 64
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes:
        index: Its number in this process, as in `cuda:0`.
        name: Name of the product.
        memory_bytes: All of its memory.
    """

    index: int
    name: str
    memory_bytes: int


@functools.cache
def visible_gpus() -> tuple[Gpu, ...]:
    """The CUDA devices that this process sees; none where there is no driver."""
    driver = _cuda_driver()
    if driver is None:
        return ()
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def used_memory_bytes(index: int) -> int:
    """Memory of a GPU in use by all processes, 0 where the driver does not say."""
    driver = _cuda_driver()
    if driver is None:
        return 0
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDevicePrimaryCtxRetain(
        ctypes.byref(context), device
    ):
        return 0
    try:
        driver.cuCtxPushCurrent_v2(context)
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return 0 if failed else total.value - free.value


def torch_devices() -> tuple[str, ...]:
    """The devices that the installed torch computes on, fastest kind first; `cpu` is always the last."""
    import torch

    if torch.cuda.is_available():
        return (*(f"cuda:{index}" for index in range(torch.cuda.device_count())), CPU)
    return ("mps", CPU) if torch.backends.mps.is_available() else (CPU,)


def onnx_devices() -> tuple[str, ...]:
    """The devices that the installed onnxruntime computes on, fastest kind first; `cpu` is always the last."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return (*(f"cuda:{gpu.index}" for gpu in visible_gpus()), CPU)
    return (CPU,)


def choose_devices(device: str, available: Sequence[str]) -> tuple[str, ...]:
    """The devices that a model runs on, one copy on each.

    Args:
        device: `auto`: all of the fastest kind; `cuda`: all GPUs; `cuda:1`, `mps` or `cpu`: that one.
        available: What the runtime computes on, fastest kind first.

    Raises:
        ConfigurationError: The runtime does not compute on the device.
    """
    wanted = kind_of(available[0]) if device == "auto" else device
    chosen = tuple(each for each in available if wanted in (each, kind_of(each)))
    if not chosen:
        gpus = visible_gpus()
        reason = (
            f"the installed library computes on {', '.join(available)} only, although the driver shows {gpus[0].name}"
            if gpus and wanted.startswith("cuda")
            else f"there is only {', '.join(available)}"
        )
        raise ConfigurationError(
            f"LABELING_DEVICE is {device!r}, but {reason}.",
            "Unset it, or install the library's build for that device (torch for CUDA, onnxruntime-gpu).",
        )
    return chosen


def choose_dtype(dtype: str, device: str) -> str:
    """The number type of a torch model: the fastest that the device really has, where `dtype` is `auto`.

    A CUDA device computes bfloat16 in hardware from compute capability 8.0 on; torch by default also counts those that
    emulate it, slowly. A CPU computes float32.
    """
    if dtype != "auto":
        return dtype
    if kind_of(device) == "cuda":
        import torch

        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "float16" if kind_of(device) == "mps" else "float32"


def kind_of(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return device.partition(":")[0]


def index_of(device: str) -> int:
    """1 of `cuda:1`, 0 where there is no number."""
    return int(device.partition(":")[2] or 0)


def cpu_threads() -> int:
    """CPUs that this process may use: by affinity and, in a container, by its share of time, rounded up."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):  # not Linux, or an older control group
        return count
    return count if quota == "max" else max(1, min(count, -(-int(quota) // int(period))))


def compute_threads() -> int:
    """Threads that a model computes with on a CPU: one a CPU, or fewer by OMP_NUM_THREADS, which Ray sets in an actor.

    An actor has its CPUs by agreement alone; affinity shows it all of the machine. torch reads the variable by itself.
    """
    agreed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cpu_threads(), int(agreed)) if agreed.isdecimal() and int(agreed) else cpu_threads()


def describe_gpus() -> str:
    """One line on the GPUs of this machine and on who can use them, for `labeling doctor`."""
    gpus = visible_gpus()
    if not gpus:
        return "none visible: models run on the CPU"
    shown = ", ".join(f"cuda:{gpu.index} {gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB)" for gpu in gpus)
    users = [
        f"{library} {'uses' if 'cuda:0' in devices() else 'does not use'} them"
        for library, devices in (("torch", torch_devices), ("onnxruntime", onnx_devices))
        if importlib.util.find_spec(library)
    ]
    return "; ".join([shown, *users])


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(index, name.value.decode(errors="replace"), memory.value)


@functools.cache
def _cuda_driver() -> ctypes.CDLL | None:
    """The CUDA driver API, initialised; None where there is no driver or no device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
