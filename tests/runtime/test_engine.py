"""The engine against the NumPy reference: equal bit for bit, whatever runs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import signbit
from signbit.compiler import reference
from signbit.errors import SessionError
from signbit.nn import QuantConv2d, Sign
from signbit.runtime import instruction_sets

from .networks import compiled_network

NETWORKS = [
    ("bineal18", "cifar"),
    ("bineal18", "imagenet"),
    ("reactnet18", "cifar"),
    ("reactnet18", "imagenet"),
]


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "isa", ["scalar", "avx2", "avx512", "avx512_popcnt", "amx", "neon", "neon_dot"]
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "stem"), NETWORKS)
def test_equals_the_reference(name: str, stem: str, threads: int, isa: str) -> None:
    if isa not in instruction_sets():
        pytest.skip(f"this CPU has no {isa}")
    compiled = compiled_network(name, stem)
    session = compiled.session(threads=threads, isa=isa)
    assert session.isa == isa
    x = pixels(3, 32, 32, 3)
    expected = reference.run(compiled.graph, x)[0]
    np.testing.assert_array_equal(session(x), expected)
    real = np.random.default_rng(4).normal(0, 2, (2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(session(real), reference.run(compiled.graph, real)[0])


@pytest.mark.parametrize(("name", "stem"), NETWORKS)
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_another_size_from_the_same_file(name: str, stem: str, size: tuple[int, int]) -> None:
    compiled = compiled_network(name, stem)
    session = compiled.session(threads=2)
    x = pixels(1, *size, 3)
    np.testing.assert_array_equal(session(x), reference.run(compiled.graph, x)[0])
    back = pixels(1, 32, 32, 3)
    np.testing.assert_array_equal(session(back), reference.run(compiled.graph, back)[0])


@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_a_batch_equals_its_images(name: str) -> None:
    session = compiled_network(name, "cifar").session(threads=2)
    x = pixels(7, 32, 32, 3)
    together = session(x)
    one_by_one = np.concatenate([session(image) for image in x])
    np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "isa", ["scalar", "avx2", "avx512", "avx512_popcnt", "amx", "neon", "neon_dot"]
)
@pytest.mark.parametrize("name", ["bineal18", "reactnet18"])
def test_full_size_equals_the_reference(name: str, isa: str) -> None:
    if isa not in instruction_sets():
        pytest.skip(f"this CPU has no {isa}")
    compiled = compiled_network(name, "imagenet", size=224, width=1.0)
    x = pixels(1, 224, 224, 3)
    expected = reference.run(compiled.graph, x)[0]
    for threads in (1, 2):
        np.testing.assert_array_equal(compiled.session(threads=threads, isa=isa)(x), expected)


def test_odd_bineal_images() -> None:
    """Strides that do not divide the size: bineal18 has no pooling that needs even maps."""
    compiled = compiled_network("bineal18", "imagenet")
    x = pixels(2, 75, 53, 3)
    np.testing.assert_array_equal(compiled.session()(x), reference.run(compiled.graph, x)[0])


def test_odd_reactnet_images_are_refused() -> None:
    """A shortcut's pooling floors where the stride-2 convolution does not."""
    session = compiled_network("reactnet18", "cifar").session()
    with pytest.raises(
        SessionError, match=r"adds maps of .* use an image size that the strides divide"
    ):
        session(pixels(1, 33, 33, 3))


def test_a_profile_names_every_kernel() -> None:
    compiled = compiled_network("reactnet18", "imagenet")
    session = compiled.session(threads=1)
    steps = session.profile(pixels(1, 32, 32, 3), rounds=3)
    assert {step["op"] for step in steps} >= {
        "conv_b1",
        "conv_q8",
        "repack",
        "max_pool",
        "avg_pool",
    }
    assert all(step["kernel"] and step["isa"] == session.isa for step in steps)
    assert all(step["ms"] >= 0 for step in steps)
    assert next(s for s in steps if s["op"] == "repack")["kernel"] == "repack_guests_s2x2"
    binary = [step for step in steps if step["op"] == "conv_b1"]
    assert len(binary) == 16
    # stage 1 at width 1/4: 16 channels, 8x8 pixels behind the stem
    assert binary[0]["macs_b1"] == 16 * 16 * 9 * 8 * 8
    assert next(s for s in steps if s["op"] == "conv_q8")["macs_q8"] == 16 * 3 * 49 * 16 * 16


@pytest.mark.parametrize(
    "isa", ["scalar", "avx2", "avx512", "avx512_popcnt", "amx", "neon", "neon_dot"]
)
@pytest.mark.parametrize("channels", [3, 8, 13])
def test_eight_bit_layers_read_bits(channels: int, isa: str) -> None:
    """Bits become bytes four channels at a time; what pads the last four, and the halo, is 0."""
    if isa not in instruction_sets():
        pytest.skip(f"this CPU has no {isa}")
    torch.manual_seed(channels)
    network = torch.nn.Sequential(
        QuantConv2d(3, channels, 3, padding=1),
        torch.nn.BatchNorm2d(channels),
        Sign(),
        QuantConv2d(channels, 5, 3, padding=1),
    )
    signbit.calibrate(network, [torch.randn(4, 3, 9, 11)])
    compiled = signbit.compile(network, torch.randn(1, 3, 9, 11))
    for shape in ((1, 3, 9, 11), (2, 3, 5, 70), (3, 3, 33, 17)):
        x = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
        expected = reference.run(compiled.graph, x)[0]
        np.testing.assert_array_equal(compiled.session(threads=1, isa=isa)(x), expected)


@pytest.mark.parametrize(
    "isa", ["scalar", "avx2", "avx512", "avx512_popcnt", "amx", "neon", "neon_dot"]
)
@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (3, 1), (3, 2), (6, 1)])
def test_real_images_are_read_where_they_are(channels: int, stride: int, isa: str) -> None:
    """A first layer of 8 bits reads the caller's array; `debug` copies it into a map first."""
    if isa not in instruction_sets():
        pytest.skip(f"this CPU has no {isa}")
    torch.manual_seed(channels)
    network = torch.nn.Sequential(QuantConv2d(channels, 4, 3, padding=1, stride=stride))
    signbit.calibrate(network, [torch.randn(4, channels, 8, 8)])
    compiled = signbit.compile(network, torch.randn(1, channels, 8, 8))
    direct, copied = (compiled.session(threads=2, isa=isa, debug=debug) for debug in (False, True))
    for batch, height, width in ((1, 1, 1), (2, 7, 16), (3, 5, 33), (2, 64, 65)):
        x = np.random.default_rng(2).normal(0, 1, (batch, channels, height, width))
        x = x.astype(np.float32)
        expected = reference.run(compiled.graph, x)[0]
        np.testing.assert_array_equal(direct(x), expected)
        np.testing.assert_array_equal(copied(x), expected)
        # What another image of this size left behind is not read.
        np.testing.assert_array_equal(direct(np.zeros_like(x)), copied(np.zeros_like(x)))
    steps = {step["op"]: step["kernel"] for step in direct.profile(x, rounds=1, peak=False)}
    assert (steps["input"], steps["pointwise"]) == ("in_place", "import_quads")
    steps = {step["op"]: step["kernel"] for step in copied.profile(x, rounds=1, peak=False)}
    assert (steps["input"], steps["pointwise"]) == ("import", "pointwise")
