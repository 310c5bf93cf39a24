"""Images per second of the two large embedders on a GPU, and the share of what its matrix units can do.

Architectures with random weights: the speed does not depend on their values, and nothing is downloaded. The vision
towers are those of `siglip2-large` (google/siglip2-large-patch16-512) and of `jina-clip-v2` (EVA02-L14 at 512 px), by
number type and batch size. The limit is what the same GPU reaches on one large product of matrices of the same type.
Pixels lie on the GPU already. jina-clip-v2 itself runs in onnxruntime; here its tower is the same sum of products in
torch.

    python -m benchmarks.gpu [--batches 1,16,64] [--dtypes bfloat16,float16,float32] [--size small]

Without a GPU it says so and succeeds. `--size small --device cpu` shows that the program works, not how fast it is.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.measure import print_result

if TYPE_CHECKING:
    import torch

REPEATS = 5
SECONDS_A_REPEAT = 0.5
MATMUL_EDGE = 8192


@dataclass(frozen=True)
class VisionTower:
    """The shape of a vision transformer.

    Attributes:
        image_px: Edge of the image.
        patch_px: Edge of a patch.
        width: Numbers of a hidden state.
        layers: Number of layers.
        heads: Heads of attention.
        hidden: Numbers inside the feed-forward block.
        is_gated: Whether that block is a SwiGLU, with three products in place of two.
    """

    image_px: int
    patch_px: int
    width: int
    layers: int
    heads: int
    hidden: int
    is_gated: bool

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def operations(self) -> float:
        """Floating-point operations of an image, a multiplication and an addition as two."""
        feed_forward = (3 if self.is_gated else 2) * self.width * self.hidden
        products = self.tokens * (4 * self.width**2 + feed_forward)
        attention = 2 * self.tokens**2 * self.width
        patches = self.tokens * 3 * self.patch_px**2 * self.width
        return 2.0 * (self.layers * (products + attention) + patches)


TOWERS = {
    # config.json of google/siglip2-large-patch16-512, and of EVA02-L14 in jinaai/jina-clip-v2.
    "siglip2-large": VisionTower(512, 16, 1024, 24, 16, 4096, is_gated=False),
    "jina-clip-v2": VisionTower(512, 14, 1024, 24, 16, 2730, is_gated=True),
}


@dataclass(frozen=True)
class Figures:
    """What was measured for one batch size.

    Attributes:
        images_per_second: Median of the repeats.
        share: Of the limit of the hardware, 0 to 1.
        peak_memory_bytes: Most memory of the GPU in use.
    """

    images_per_second: float
    share: float
    peak_memory_bytes: int


class Bench:
    """Measurements on one device.

    Args:
        device: `cuda` or, to try the program out, `cpu`.
        matmul_edge: Edge of the matrices of the limit.
    """

    def __init__(self, device: str, matmul_edge: int) -> None:
        self._device = device
        self._matmul_edge = matmul_edge

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds of one call: the median of repeats of half a second each, after warming up."""
        work()
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        calls = max(1, int(SECONDS_A_REPEAT / max(time.perf_counter() - started, 1e-6)))
        repeats = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            for _ in range(calls):
                work()
            self._wait()
            repeats.append((time.perf_counter() - started) / calls)
        return statistics.median(repeats)

    def limit(self, dtype: str) -> float:
        """Floating-point operations per second of a large product of matrices."""
        import torch

        edge = self._matmul_edge
        left, right = (torch.randn(edge, edge, device=self._device, dtype=getattr(torch, dtype)) for _ in range(2))
        return 2 * edge**3 / self.seconds(lambda: left @ right)

    def tower(self, shape: VisionTower, dtype: str, batch: int, limit: float) -> Figures:
        """Figures of a tower for a batch size.

        Raises:
            torch.OutOfMemoryError: The batch does not fit.
        """
        import torch

        model = build(shape).to(device=self._device, dtype=getattr(torch, dtype)).eval()
        pixels = torch.randn(batch, 3, shape.image_px, shape.image_px, device=self._device, dtype=getattr(torch, dtype))
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            seconds = self.seconds(lambda: model(pixels))
        peak = torch.cuda.max_memory_allocated() if self._device == "cuda" else 0
        rate = batch / seconds
        return Figures(rate, rate * shape.operations / limit, peak)

    def _wait(self) -> None:
        import torch

        if self._device == "cuda":
            torch.cuda.synchronize()


def build(shape: VisionTower) -> torch.nn.Module:
    """The tower with random weights: patches, layers of attention and feed-forward, and the mean of the tokens."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_feed_forward = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
            self.queries_keys_values = nn.Linear(shape.width, 3 * shape.width)
            self.joined = nn.Linear(shape.width, shape.width)
            self.inner = nn.Linear(shape.width, (2 if shape.is_gated else 1) * shape.hidden)
            self.outer = nn.Linear(shape.hidden, shape.width)

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            batch, tokens, width = states.shape
            projected = self.queries_keys_values(self.before_attention(states))
            parts = projected.view(batch, tokens, 3, shape.heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            states = states + self.joined(attended.transpose(1, 2).reshape(batch, tokens, width))
            inner = self.inner(self.before_feed_forward(states))
            if shape.is_gated:
                gate, inner = inner.chunk(2, dim=-1)
                inner = functional.silu(gate) * inner
            else:
                inner = functional.gelu(inner, approximate="tanh")
            result: torch.Tensor = states + self.outer(inner)
            return result

    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, shape.width, shape.patch_px, shape.patch_px)
            self.positions = nn.Parameter(torch.randn(1, shape.tokens, shape.width))
            self.layers = nn.ModuleList(Layer() for _ in range(shape.layers))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            states = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
            for layer in self.layers:
                states = layer(states)
            unit: torch.Tensor = functional.normalize(states.mean(dim=1).float(), dim=-1)
            return unit

    return Tower()


def run(device: str, batches: Sequence[int], dtypes: Sequence[str], towers: dict[str, VisionTower], edge: int) -> float:
    """Measure and print everything; returns the highest share of the limit."""
    import torch

    bench, shares = Bench(device, edge), [0.0]
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU: shows that the program works, no more"
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"{'model':<14} {'dtype':<9} {'batch':>5} {'images/s':>9} {'of limit':>8} {'GiB':>6}")
    for dtype in dtypes:
        limit = bench.limit(dtype)
        print(f"{'matmul':<14} {dtype:<9} {'':>5} {'':>9} {limit / 1e12:>6.1f} TFLOP/s")
        for model, shape in towers.items():
            for batch in batches:
                try:
                    figures = bench.tower(shape, dtype, batch, limit)
                except torch.OutOfMemoryError:
                    print(f"{model:<14} {dtype:<9} {batch:>5} does not fit the memory")
                    break
                finally:
                    gc.collect()
                    torch.cuda.empty_cache()
                shares.append(figures.share)
                memory = figures.peak_memory_bytes / 2**30
                print(
                    f"{model:<14} {dtype:<9} {batch:>5} {figures.images_per_second:>9.1f} {figures.share:>8.1%} "
                    f"{memory:>6.1f}",
                    flush=True,
                )
    return max(shares)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--dtypes", default="bfloat16,float16,float32")
    parser.add_argument("--size", choices=("real", "small"), default="real")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use: nothing is measured. Run this on a machine that has one.")
        print_result("gpu", [0.0], goal=0.0)
        return 0
    is_small = options.size == "small"
    towers = {
        name: replace(shape, image_px=4 * shape.patch_px, width=64, layers=2, heads=4, hidden=128)
        if is_small
        else shape
        for name, shape in TOWERS.items()
    }
    batches = [int(batch) for batch in options.batches.split(",")]
    edge = 256 if is_small else MATMUL_EDGE
    share = run(options.device, batches, options.dtypes.split(","), towers, edge)
    print_result("gpu", [share], goal=0.0)  # no goal: a figure of the hardware, not of ours
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
