"""Whatever comes instead of an image ends as an image or as an error of ours, in bounded memory and time."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_bodies import SMALL, STRIPS, is_clear, jpeg_in_scans, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling_assets.errors import (
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidImageError,
)
from labeling_assets.services.images.decoding import MAX_JPEG_SCANS, decode

MEGABYTE = 1_000_000
LARGE = samples(900, 700)


def outcome(body: bytes) -> bytes | None:
    """The small JPEG of a body, or None where it is refused in a sentence of ours."""
    try:
        return decode(body)[1]
    except ImageError as error:
        return None if is_clear(error) else str(error).encode()


# Damaged images


@pytest.mark.parametrize("name", SMALL)
def test_an_image_cut_off_at_any_byte_is_refused_or_nothing_of_it_is_lost(name: str) -> None:
    body = SMALL[name]
    whole = outcome(body)
    assert whole is not None
    assert {outcome(body[:kept]) for kept in range(len(body))} <= {None, whole}
    assert outcome(body[: len(body) // 2]) is None


@settings(max_examples=60)
@given(st.sampled_from(sorted(LARGE)), st.floats(0, 1, exclude_max=True))
def test_a_large_image_cut_off_anywhere_is_refused_or_nothing_of_it_is_lost(name: str, kept: float) -> None:
    body = LARGE[name]
    small = outcome(body[: int(kept * len(body))])
    assert small is None or small == outcome(body)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", SMALL)
def test_any_flipped_bit_of_a_header_gives_an_image_or_an_image_error(name: str) -> None:
    for place, bit in itertools.product(range(40), range(8)):
        damaged = bytearray(SMALL[name])
        damaged[place] ^= 1 << bit
        outcome(bytes(damaged))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300)
@given(st.sampled_from(sorted(SMALL)), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_flipped_bits_anywhere_give_an_image_or_an_image_error(name: str, places: list[float]) -> None:
    damaged = bytearray(SMALL[name])
    for place in places:
        bit = int(place * len(damaged) * 8)
        damaged[bit // 8] ^= 1 << bit % 8
    outcome(bytes(damaged))


@settings(max_examples=100)
@given(st.sampled_from(sorted(SMALL)), st.sampled_from(sorted(SMALL)), st.floats(0, 1))
def test_the_start_of_one_image_before_the_end_of_another_gives_an_image_or_an_image_error(
    start: str, end: str, kept: float
) -> None:
    outcome(SMALL[start][: int(kept * len(SMALL[start]))] + SMALL[end][int(kept * len(SMALL[end])) :])


def test_an_empty_body_is_called_empty() -> None:
    with pytest.raises(InvalidImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("name", STRIPS)
def test_a_strip_is_refused_by_its_header(name: str) -> None:
    with pytest.raises((ImageTooSmallError, ImageTooLargeError), match=name.partition(" ")[2]):
        decode(STRIPS[name])


def test_a_jpeg_is_decoded_in_a_bounded_number_of_passes() -> None:
    assert outcome(jpeg_in_scans(MAX_JPEG_SCANS)) is not None
    with pytest.raises(InvalidImageError, match="more than 100 scans"):
        decode(jpeg_in_scans(MAX_JPEG_SCANS + 1))


DECODE_ALL = """
import json, re, resource, sys
from pathlib import Path
import hostile_bodies
from labeling_assets.errors import RowError
from labeling_assets.services.images.decoding import decode
def memory_kb(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
bodies = {name: body for group in sys.argv[2:] for name, body in getattr(hostile_bodies, group)().items()}
decode(hostile_bodies.samples(900, 700)["jpeg"])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before_kb, address_space = memory_kb("VmHWM"), memory_kb("VmSize") * 1024
resource.setrlimit(resource.RLIMIT_AS, (address_space + int(sys.argv[1]),) * 2)
outcomes = {}
for name, body in bodies.items():
    try:
        decode(body)
        outcomes[name] = "decoded"
    except RowError as error:
        outcomes[name] = str(error)
print(json.dumps([outcomes, (memory_kb("VmHWM") - before_kb) * 1024]))
"""


def decoded_in_a_process(limit_bytes: int, *groups: str) -> tuple[dict[str, str], int]:
    """What became of each body, and the memory that decoding took, in a process that may not take more than a limit."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DECODE_ALL, str(limit_bytes), *groups],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    outcomes, peak_bytes = json.loads(done.stdout)
    return outcomes, peak_bytes


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits the address space")


@linux_only
def test_bodies_that_promise_much_take_little_memory() -> None:
    outcomes, peak_bytes = decoded_in_a_process(300 * MEGABYTE, "deceptive", "strips")
    assert peak_bytes < 100 * MEGABYTE
    assert all(text == "decoded" or text.endswith(".") for text in outcomes.values()), outcomes


@linux_only
def test_the_largest_images_that_are_decoded_take_bounded_memory() -> None:
    outcomes, peak_bytes = decoded_in_a_process(2000 * MEGABYTE, "largest")
    assert set(outcomes.values()) == {"decoded"}
    assert peak_bytes < 1000 * MEGABYTE
