"""BNext's published checkpoints: names, tensors that are not used, and what may not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import signbit
from signbit.checkpoints import import_checkpoint, published_state_dict, published_tensors
from signbit.checkpoints.bnext import BNEXT
from signbit.errors import CheckpointError
from tests.checkpoints.test_import import LISTINGS, refused, saved
from tests.models import ab_reference
from tests.models import bnext_reference as reference

# size, classes -> parameters of the published file
PARAMETERS = {
    ("tiny", 1000): 30_862_236,
    ("small", 1000): 68_594_614,
    ("middle", 1000): 134_501_974,
    ("large", 1000): 326_546_640,
    ("tiny", 10): 29_847_486,
}
UNUSED = (".temperature", "feature.0.prelu.weight")
BUFFERS = (".temperature", ".running_mean", ".running_var", ".num_batches_tracked")


@pytest.fixture(scope="module")
def state() -> reference.State:
    return reference.random_state(reference.shapes_18(reference.WIDTHS_18, 10, "cifar"))


@pytest.fixture
def file(tmp_path: Path, state: reference.State) -> Path:
    return saved(tmp_path / "published.pt", state)


def zeros(shapes: reference.Shapes) -> reference.State:
    """Tensors of these shapes in a file of a few bytes each."""
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    return {
        name: torch.zeros((), dtype=torch.int64 if name in counters else None).expand(shape)
        for name, shape in shapes.items()
    }


def tiny(classes: int = 10, **ablated: bool) -> reference.State:
    return zeros(reference.shapes(reference.WIDTHS["tiny"], classes, **ablated))


# --- names and shapes ---


@pytest.mark.parametrize(("size", "classes"), PARAMETERS)
def test_names_and_shapes_are_the_published_ones(size: str, classes: int) -> None:
    stem = "imagenet" if classes == 1000 else "cifar"
    found = published_tensors(f"bnext_{size}", stem=stem, num_classes=classes)
    expected = reference.shapes(reference.WIDTHS[size], classes)
    assert list(found.items()) == list(expected.items())
    learned = [shape for name, shape in found.items() if not name.endswith(BUFFERS)]
    assert sum(map(math.prod, learned)) == PARAMETERS[size, classes]


@pytest.mark.parametrize(("size", "classes"), PARAMETERS)
def test_names_are_those_of_the_listings(size: str, classes: int) -> None:
    data = "imagenet" if classes == 1000 else "cifar10"
    listing = LISTINGS / f"bnext_{size}_{data}.json"
    if not listing.exists():
        pytest.skip("no listing of this file")
    tensors = json.loads(listing.read_text())["tensors"]
    found = published_tensors(f"bnext_{size}", stem=data.strip("10"), num_classes=classes)
    assert list(found.items()) == [(name, tuple(shape)) for name, shape in tensors.items()]


@pytest.mark.parametrize(
    ("elm_attention", "info_rcp"), [(False, True), (True, False), (False, False)]
)
def test_names_of_ablated_networks(elm_attention: bool, info_rcp: bool) -> None:
    ablated = {"elm_attention": elm_attention, "info_rcp": info_rcp}
    found = published_tensors("bnext_tiny", num_classes=10, **ablated)
    expected = reference.shapes(reference.WIDTHS["tiny"], 10, **ablated)
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_names_of_bnext18(stem: str) -> None:
    found = published_tensors("bnext18", stem=stem, num_classes=10)
    expected = reference.shapes_18(reference.WIDTHS_18, 10, stem)
    assert list(found.items()) == list(expected.items())


def test_every_registered_network_of_the_method_has_published_names() -> None:
    assert sorted(BNEXT.models) == signbit.list_models("bnext*")


# --- round trips ---


def test_round_trip(file: Path, state: reference.State) -> None:
    imported = import_checkpoint(file)
    trained = imported.trained
    bits = {"stem_bits": 32, "se_bits": 32, "head_bits": 32}
    assert trained.spec == {"name": "bnext18", "num_classes": 10, "stem": "cifar", **bits}
    assert imported.inferred == {"model": "bnext18", "num_classes": 10, "stem": "cifar"}
    assert imported.note == ""
    assert trained.input_shape == (3, 32, 32)
    assert (trained.mean, trained.std) == ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))
    back = published_state_dict("bnext18", trained.model)
    assert list(back) == list(state)
    for name, tensor in back.items():
        if name.endswith(".temperature"):
            assert tensor.shape == (1,)
            assert tensor < min(reference.SOFTEST)
        elif ".FFN.activation1." in name:
            assert torch.equal(tensor, torch.full_like(state[name], 0.25))
        else:
            assert torch.equal(tensor, state[name]), name


def test_unused_tensors_of_the_plan_of_mobilenet() -> None:
    model = signbit.create_model(
        "bnext_tiny",
        num_classes=10,
        width=0.25,
        stem_bits=32,
        se_bits=32,
        head_bits=32,
        info_rcp=False,
    )
    back = published_state_dict("bnext_tiny", model)
    expected = reference.shapes([8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256], 10, info_rcp=False)
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == expected
    # of FFN units without recoupling
    assert torch.equal(back["feature.3.FFN.norm2.running_var"], torch.ones(32))
    model.stages[1][0].spatial.bypass[0].weight.data.fill_(0.5)
    model.stages[1][0].spatial.act.weight.data.fill_(0.75)
    back = published_state_dict("bnext_tiny", model)
    assert torch.equal(back["feature.2.Attention.activation1.weight"], torch.full((16,), 0.5))
    assert torch.equal(back["feature.2.Attention.activation2.weight"], torch.full((16,), 0.75))
    assert torch.equal(back["feature.1.Attention.activation1.weight"], torch.full((8,), 0.25))


def test_the_classes_tell_the_stem(tmp_path: Path) -> None:
    imported = import_checkpoint(saved(tmp_path / "imagenet.pt", tiny(1000)))
    assert imported.inferred == {"model": "bnext_tiny", "num_classes": 1000, "stem": "imagenet"}
    assert imported.trained.input_shape == (3, 224, 224)
    assert imported.trained.mean == (0.485, 0.456, 0.406)


def test_ablations_are_told_by_the_names(tmp_path: Path) -> None:
    file = saved(tmp_path / "ablated.pt", tiny(elm_attention=False, info_rcp=False))
    imported = import_checkpoint(file)
    assert imported.inferred["elm_attention"] is False
    assert imported.inferred["info_rcp"] is False
    unit = imported.trained.model.stages[1][0].spatial
    assert unit.bypass is None
    assert unit.norm2 is None


def test_a_training_checkpoint_with_tensors_beside_its_state(
    tmp_path: Path, state: reference.State
) -> None:
    content = {
        "epoch": 511,
        "best_top1_acc": torch.tensor(72.4),
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-7}]},
    }
    imported = import_checkpoint(saved(tmp_path / "checkpoint.pth.tar", content))
    assert torch.equal(imported.trained.model.head.weight, state["fc.weight"])


# --- soft weights ---


def test_soft_weights_are_told(tmp_path: Path, state: reference.State) -> None:
    soft = {
        key: torch.ones(1) if key.endswith("temperature") else tensor
        for key, tensor in state.items()
    }
    note = import_checkpoint(saved(tmp_path / "soft.pt", soft)).note
    assert note.startswith("the binary weights are still soft (temperature 1): 100.0% of them are")


@pytest.mark.parametrize("unit", ["feature.1.FFN", "layer0.0.FFN"])
def test_only_weights_below_the_temperature_are_soft(unit: str) -> None:
    weight = torch.tensor([0.5, -0.5, 0.05, -0.01])
    limit = 1e-5 if unit.startswith("layer") else 1e-7
    name = f"{unit}.binary_conv"
    warm = {f"{name}.weight": weight, f"{name}.temperature": torch.tensor([0.06])}
    assert "soft (temperature 0.06): 50.0% of them" in BNEXT.note(warm)
    # clamp(w / T, -1, 1) is the sign of every weight
    assert BNEXT.note(warm | {f"{name}.weight": weight.sign()}) == ""
    tiny = {f"{name}.weight": weight * limit / 10}
    assert "100.0%" in BNEXT.note(
        warm | tiny | {f"{name}.temperature": torch.tensor([limit * 1.1])}
    )
    assert BNEXT.note(warm | tiny | {f"{name}.temperature": torch.tensor([limit * 0.9])}) == ""


# --- what does not fit ---


def test_a_temperature_must_be_there(tmp_path: Path, state: reference.State) -> None:
    name = "layer1.0.FFN.binary_conv.temperature"
    less = {key: tensor for key, tensor in state.items() if key != name}
    message = refused(saved(tmp_path / "less.pt", less))
    assert message.startswith(f"{name} [1] is missing for bnext18 (num_classes 10, stem cifar)")
    assert message.endswith("no network of BNext fits the file")


def test_another_size_and_another_method(tmp_path: Path, file: Path) -> None:
    other = saved(tmp_path / "tiny.pt", tiny())
    message = refused(other, "bnext_small")
    assert message.startswith("feature.0.conv1.weight is [32, 3, 3, 3], but bnext_small")
    assert message.endswith("[48, 3, 3, 3]; the file fits bnext_tiny with stem cifar")
    message = refused(other, "ab_reactnet_a")
    assert message.endswith("the file fits bnext_tiny with stem cifar")
    foreign = saved(tmp_path / "ab.pt", zeros(ab_reference.shapes("xnornet18", "cifar", 10)))
    assert refused(foreign, "bnext18").endswith("the file fits ab_xnornet18 with stem cifar")
    assert "[64, 3, 7, 7]; the file fits bnext18 with stem cifar" in refused(file, stem="imagenet")


def test_quantised_variants(tmp_path: Path) -> None:
    clips = {
        f"feature.0.conv1.{name}_clip_val": torch.zeros(2) for name in ("weight", "activation")
    }
    message = refused(saved(tmp_path / "quantised.pt", tiny() | clips), "bnext_tiny")
    assert message.startswith(
        "feature.0.conv1.weight_clip_val [2] is in the file but not in bnext_"
    )
    assert "the variant with quantised stem" in message
    assert "signbit.to_8bit" in message


def test_networks_without_a_published_form() -> None:
    model = signbit.create_model("bnext_tiny", num_classes=10, width=0.25)
    with pytest.raises(CheckpointError, match=r"stem\.0\.range_min: no release of BNext has"):
        published_state_dict("bnext_tiny", model)
    with pytest.raises(CheckpointError, match="bnext18 without recoupling or attention"):
        published_tensors("bnext18", info_rcp=False)
