"""Devices and number types are chosen by one rule, with or without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling_assets.errors import ConfigurationError
from labeling_assets.resources import GpuResource, default_resources
from labeling_assets.services.embedding import devices
from labeling_assets.services.embedding.devices import (
    Gpu,
    choose_devices,
    choose_dtype,
    compute_threads,
    cpu_threads,
    describe_gpus,
    index_of,
    onnx_devices,
    torch_devices,
    visible_gpus,
)
from labeling_assets.services.embedding.jina import jina_dtype
from labeling_assets.settings import Settings

TWO_GPUS = ("cuda:0", "cuda:1", "cpu")


@pytest.mark.parametrize(
    ("device", "available", "chosen"),
    [
        ("auto", ("cpu",), ("cpu",)),
        ("auto", TWO_GPUS, ("cuda:0", "cuda:1")),
        ("auto", ("mps", "cpu"), ("mps",)),
        ("cuda", TWO_GPUS, ("cuda:0", "cuda:1")),
        ("cuda:1", TWO_GPUS, ("cuda:1",)),
        ("cpu", TWO_GPUS, ("cpu",)),
        ("mps", ("mps", "cpu"), ("mps",)),
    ],
)
def test_auto_is_all_devices_of_the_fastest_kind(
    device: str, available: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert choose_devices(device, available) == chosen


@pytest.mark.parametrize("device", ["cuda", "cuda:2", "mps"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str) -> None:
    with pytest.raises(ConfigurationError, match=f"LABELING_DEVICE is '{device}'"):
        choose_devices(device, ("cpu",))


def test_a_library_without_cuda_beside_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: (Gpu(0, "NVIDIA H200", 139 << 30),))
    with pytest.raises(ConfigurationError, match="computes on cpu only, although the driver shows NVIDIA H200"):
        choose_devices("cuda", ("cpu",))


def test_the_cpu_is_always_there() -> None:
    assert torch_devices()[-1] == onnx_devices()[-1] == "cpu"


@pytest.mark.parametrize(
    ("wanted", "device", "dtype"),
    [
        ("auto", "cpu", "float32"),
        ("auto", "mps", "float16"),
        ("bfloat16", "cpu", "bfloat16"),
        ("float32", "cuda:0", "float32"),
    ],
)
def test_the_number_type_follows_the_device_unless_it_is_set(wanted: str, device: str, dtype: str) -> None:
    assert choose_dtype(wanted, device) == dtype


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_emulated_bfloat16_does_not_count(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, dtype: str) -> None:
    import contextlib

    import torch

    # Not to be had without a GPU: an older one emulates bfloat16 and says so when asked.
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bfloat16
    )
    assert choose_dtype("auto", "cuda:0") == dtype


@pytest.mark.parametrize(
    ("wanted", "device", "dtype"),
    [("auto", "cpu", "int8"), ("auto", "cuda:1", "float16"), ("float32", "cuda:0", "float32")],
)
def test_the_file_of_jina_follows_the_device(wanted: str, device: str, dtype: str) -> None:
    assert jina_dtype(wanted, device) == dtype


def test_jina_has_no_file_in_bfloat16() -> None:
    with pytest.raises(ConfigurationError, match="LABELING_DTYPE"):
        jina_dtype("bfloat16", "cuda:0")


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)]
)
def test_threads_follow_the_share_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, threads: int
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(devices, "_CGROUP_QUOTA", file)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    assert cpu_threads() == threads


@pytest.mark.parametrize(("agreed", "threads"), [("", 8), ("1", 1), ("3,1", 3), ("64", 8), ("0", 8), ("many", 8)])
def test_a_model_computes_with_no_more_threads_than_were_agreed(
    monkeypatch: pytest.MonkeyPatch, agreed: str, threads: int
) -> None:
    monkeypatch.setattr(devices, "cpu_threads", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", agreed)
    assert compute_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert compute_threads() == 8


def test_the_number_of_a_device_is_0_where_there_is_none() -> None:
    assert (index_of("cuda:3"), index_of("cuda"), index_of("cpu")) == (3, 0, 0)


def test_gpus_are_described_for_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_gpus().startswith("cuda:0" if visible_gpus() else "none visible")
    monkeypatch.setattr(devices, "visible_gpus", lambda: (Gpu(0, "NVIDIA H200", 139 << 30),))
    monkeypatch.setattr(devices, "torch_devices", lambda: ("cpu",))
    monkeypatch.setattr(devices, "onnx_devices", lambda: ("cuda:0", "cpu"))
    assert describe_gpus() == "cuda:0 NVIDIA H200 (139 GiB); torch does not use them; onnxruntime uses them"


def test_the_embedder_gets_its_device_from_the_gpu_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_DEVICE", "cpu")
    monkeypatch.setenv("LABELING_DTYPE", "float32")
    monkeypatch.setenv("LABELING_GPU_MEMORY_SHARE", "0.5")
    resources = default_resources(Settings.load())
    gpu = resources["gpu"]
    assert isinstance(gpu, GpuResource)
    assert (gpu.device, gpu.dtype, gpu.memory_share) == ("cpu", "float32", 0.5)
    assert list(gpu.visible_devices()) == list(visible_gpus())
    with resources["embedder"].process_config_and_initialize_cm() as embedder:
        assert embedder.get().model_info()["device"] == "cpu"
