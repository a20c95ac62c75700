"""OXBNN: passes against schedules that are walked through, power by hand, the two variants."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from signbit.errors import SignbitError
from signbit.hardware.photonic import (
    CLEANED,
    PARITY,
    PhotonicAccelerator,
    additions,
    estimate,
    passes,
    slices,
)
from signbit.hardware.presets import PresetError
from signbit.hardware.workload import Product, Work, Workload


@pytest.fixture(scope="module")
def parity() -> PhotonicAccelerator:
    return PhotonicAccelerator.load("oxbnn-50")


@pytest.fixture(scope="module")
def cleaned() -> PhotonicAccelerator:
    return PhotonicAccelerator.load("oxbnn-50-cleaned")


def network(*works: Work) -> Workload:
    return Workload("net", works, 0)


def conv(product: Product) -> Work:
    return Work("conv", "conv_b1", product, {"compare": 5}, 0, 0, 0)


def walked(p: Product, a: PhotonicAccelerator) -> int:
    """Symbols by giving out slices to waveguides until all is done, as each variant does."""
    d, symbols = slices(p, a), 0
    if a.variant == CLEANED:
        waiting = p.pixels * p.outputs * p.groups
        while waiting > 0:
            waiting -= a.units * a.waveguides
            symbols += d
        return symbols
    for _ in range(p.outputs * p.groups):
        waiting = p.pixels
        while waiting > 0:
            symbols += 1
            if d <= a.waveguides:
                waiting -= sum(a.waveguides // d for _ in range(a.units))
            else:
                units = a.units
                while units * a.waveguides >= d:
                    units -= -(-d // a.waveguides)
                    waiting -= 1
    return symbols


@pytest.mark.parametrize("variant", [PARITY, CLEANED])
@pytest.mark.parametrize(
    "product",
    [
        Product(1, 5, 3, 40), Product(9, 3, 4, 100), Product(9, 20, 2, 33),
        Product(9, 8, 2, 50, groups=2), Product(1, 40, 5, 1),
    ],
    ids=str,
)  # fmt: skip
def test_passes_are_those_of_the_schedule(
    parity: PhotonicAccelerator, product: Product, variant: str
) -> None:
    small = replace(parity, variant=variant, units=40, waveguides=5, wavelengths=7)
    assert passes(product, small) == walked(product, small)


def test_a_dot_product_larger_than_the_machine(parity: PhotonicAccelerator) -> None:
    small = replace(parity, units=3, waveguides=2, wavelengths=4)
    # 13 slices on 6 waveguides: three symbols for each of 10 dot products
    assert passes(Product(1, 50, 2, 5), small) == 10 * 3


def test_the_shipped_configuration_by_hand(parity: PhotonicAccelerator) -> None:
    product = Product(9, 64, 64, 3136, weight_bits=1, input_bits=1)
    # 31 slices of 19 take two units: 112 dot products a symbol, 28 symbols a channel
    assert slices(product, parity) == 31
    assert passes(product, parity) == 64 * 28
    assert additions(product, parity) == 2 * 64 * 3136
    layer = estimate(network(conv(product)), parity).layers[0]
    assert layer.light == pytest.approx(64 * 28 / 50e9)
    assert layer.adding == pytest.approx(2 * 64 * 3136 / 128 * 20e-12)


def test_additions_of_parts(parity: PhotonicAccelerator, cleaned: PhotonicAccelerator) -> None:
    def product(d: int) -> Product:
        return Product(1, 19 * d, 1, 1)

    assert [additions(product(d), parity) for d in (1, 14, 15, 27, 28, 43)] == [0, 0, 0, 0, 2, 3]
    assert [additions(product(d), cleaned) for d in (1, 14, 15, 28, 29)] == [0, 0, 1, 1, 2]


def test_static_power_by_hand(parity: PhotonicAccelerator, cleaned: PhotonicAccelerator) -> None:
    gates = 19 * 19
    shared = 5 * 1.274e-3 * gates + (2.8e-3 + 7.2e-3 + 0.66e-3) * 19 + 7.8e-6 * gates
    shared += 41.4e-3 + 42e-3 + 7e-3 + 24.4e-6 + 0.52e-3
    ring = 1.375e-3 + 1.6e-6
    assert parity.static_power == pytest.approx(224 * (shared + ring * (gates + 19) + 2e-3 * gates))
    assert cleaned.static_power == pytest.approx(224 * (shared + ring * gates + 2e-3 * 19))


def test_power_and_efficiency(parity: PhotonicAccelerator) -> None:
    product = Product(1, 19, 1, 1, weight_bits=1, input_bits=1)
    found = estimate(network(conv(product)), parity)
    energy = 19 * (0.05e-12 + 2 * 1.215e-12) + (0.122 + 0.21 + 19.2) * 1e-12 + 49.7e-9
    assert found.layers[0].energy == pytest.approx(energy)
    assert found.seconds == pytest.approx(20e-12)
    assert found.power == pytest.approx(parity.static_power + energy / 20e-12)
    assert found.frames_per_joule == pytest.approx(found.frames_per_second / found.power)


def test_several_bits_are_worked_bit_by_bit(parity: PhotonicAccelerator) -> None:
    product = Product(9, 64, 64, 196, weight_bits=1, input_bits=1)
    one = estimate(network(conv(product)), parity)
    many = estimate(network(conv(replace(product, weight_bits=4, input_bits=8))), parity)
    assert many.layers[0].light == pytest.approx(32 * one.layers[0].light)
    assert many.layers[0].energy == pytest.approx(32 * one.layers[0].energy)


def test_pooling(parity: PhotonicAccelerator, cleaned: PhotonicAccelerator) -> None:
    pool = Work("pool", "max_pool", None, {"compare": 33, "add": 31}, 0, 0, 0)
    average = replace(pool, op="avg_pool")
    assert estimate(network(pool), parity).seconds == pytest.approx(3 * 3.125e-9)
    with pytest.raises(SignbitError, match="net has no layer that the accelerator works on"):
        estimate(network(average), parity)
    assert estimate(network(average), cleaned).seconds == pytest.approx(4 * 3.125e-9)


def test_results_are_labelled(parity: PhotonicAccelerator, cleaned: PhotonicAccelerator) -> None:
    work = conv(Product(9, 64, 64, 196, weight_bits=1, input_bits=1))
    for accelerator, label in ((parity, PARITY), (cleaned, CLEANED)):
        held = json.loads(json.dumps(estimate(network(work), accelerator).to_dict()))
        assert held["variant"] == label
        assert held["layers"][0]["slices"] == 31


def test_sizes_of_0_and_missing_units(parity: PhotonicAccelerator) -> None:
    with pytest.raises(PresetError, match="oxbnn-50: wavelengths must be at least 1"):
        replace(parity, wavelengths=0)
    with pytest.raises(PresetError, match="oxbnn-50: laser_power must be above 0"):
        replace(parity, laser_power=0.0)
