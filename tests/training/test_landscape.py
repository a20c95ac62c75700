"""Loss landscapes: directions, rows, smoothness, and what a folder remembers of a stopped run."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.data.base import ImageDataset
from signbit.errors import DataError, SignbitError
from signbit.nn import (
    BinaryConv2d,
    BinaryLinear,
    DynamicQuantConv2d,
    DynamicQuantLinear,
    QuantConv2d,
    RPReLU,
    ScaledStdBinaryConv2d,
    ScaledStdConv2d,
)
from signbit.tasks import classification
from signbit.training import TrainedModel, weights_sha256
from signbit.training import landscape_run as runs
from signbit.training.landscape import (
    Grid,
    choose_images,
    filter_directions,
    loss_row,
    quadratic_fit,
    roughness,
)
from signbit.training.landscape_run import measure_landscape

from .killable import tiny_network

SOURCE = load_source("digits")
IMAGES = choose_images(SOURCE.train, 40)
GRID = Grid(size=3, reach=0.5, seed=4)


def trained(seed=9, **changes):
    """A network as it comes from a file: not trained, but with batch statistics of its own."""
    model = tiny_network()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("weight", "running_mean")):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    facts = {
        "model": model.eval(), "spec": {"name": "tiny"}, "class_names": SOURCE.class_names,
        "mean": SOURCE.mean, "std": SOURCE.std, "input_shape": SOURCE.input_shape,
    }  # fmt: skip
    return TrainedModel(**{**facts, **changes})


def measure(output, networks=None, grid=GRID, dataset=IMAGES, **options):
    networks = networks or {"a": trained()}
    options = {"data": "digits", "split": "train", "console": Console(quiet=True), **options}
    return measure_landscape(networks, dataset, grid, output, **options)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the picture away, which takes longer than the rest."""
    monkeypatch.setattr(runs, "draw_landscape", lambda *arguments: b"")


def norms(tensor):
    return tensor.double().flatten(1).norm(dim=1)


class Mixed(nn.Module):
    """Every kind of layer that has weights, and parameters of several dimensions that are none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(4, 6, 3, groups=2),
                BinaryConv2d(6, 4, 3, bias=True),
                ScaledStdConv2d(4, 4, 3),
                ScaledStdBinaryConv2d(4, 4, 3),
                nn.Linear(4, 3),
                BinaryLinear(4, 5),
                DynamicQuantConv2d(4, 3, 3),
                DynamicQuantLinear(4, 3),
                QuantConv2d(4, 3, 3, bits=4),
            ]
        )
        self.up = nn.ConvTranspose2d(4, 6, 3, groups=2)
        self.others = nn.ModuleList([nn.BatchNorm2d(4), nn.PReLU(4), RPReLU(4), nn.Embedding(3, 4)])
        self.shift = nn.Parameter(torch.randn(1, 4, 1, 1))


# --- directions ---


def test_filters_of_a_direction_are_as_long_as_those_of_the_weights():
    model = Mixed()
    for direction in filter_directions(model, 0):
        for index, layer in enumerate(model.layers):
            drawn = direction[f"layers.{index}.weight"]
            assert drawn.shape == layer.weight.shape
            assert drawn.dtype == layer.weight.dtype
            torch.testing.assert_close(norms(drawn), norms(layer.weight), rtol=1e-6, atol=0)


def test_filters_of_a_transposed_convolution_are_its_output_channels():
    model = Mixed()
    drawn = filter_directions(model, 0)[0]["up.weight"]
    for channel in range(6):
        group, column = divmod(channel, 3)  # [4 inputs, 3 outputs a group, 3, 3]
        rows = slice(2 * group, 2 * group + 2)
        found, wanted = (t[rows, column].double().norm() for t in (drawn, model.up.weight))
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def test_only_weights_of_layers_move():
    first, second = filter_directions(Mixed(), 0)
    assert set(first) == set(second) == {*(f"layers.{i}.weight" for i in range(9)), "up.weight"}


def test_directions_depend_on_the_seed_and_differ():
    model = Mixed()
    one, again, other = (filter_directions(model, seed) for seed in (0, 0, 1))
    for name, drawn in one[0].items():
        assert torch.equal(drawn, again[0][name])
        assert not torch.equal(drawn, other[0][name])
        cosine = torch.cosine_similarity(drawn.flatten(), one[1][name].flatten(), 0)
        assert abs(cosine) < 0.9


def test_networks_of_one_architecture_get_the_same_numbers():
    model = nn.Linear(5, 3)
    scaled = nn.Linear(5, 3)
    factors = torch.tensor([[2.0], [0.5], [4.0]])
    scaled.weight.data = model.weight.data * factors
    one, other = (filter_directions(m, 3)[0]["weight"] for m in (model, scaled))
    torch.testing.assert_close(one * factors, other)


def test_a_filter_of_zeros_stays():
    model = nn.Conv2d(2, 2, 3)
    model.weight.data[1] = 0
    drawn = filter_directions(model, 0)[0]["weight"]
    assert (drawn[1] == 0).all()
    assert (drawn[0] != 0).all()


def test_directions_of_nothing_and_of_nan():
    with pytest.raises(SignbitError, match="no convolution or linear layer"):
        filter_directions(nn.BatchNorm2d(3), 0)
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.data[0, 1] = torch.nan
    with pytest.raises(SignbitError, match=r"0\.weight holds numbers that are not finite"):
        filter_directions(model, 0)


# --- the grid ---


def test_positions_are_symmetric_about_exactly_zero():
    for size in (3, 21, 51):
        positions = Grid(size, 0.7).positions
        assert positions[size // 2] == 0
        assert np.array_equal(positions, -positions[::-1])
        assert positions[-1] == 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 2}, "size 2: expected an odd number of points a side, 3 or more.* try 3"),
        ({"size": 20}, "size 20: .*try 21"),
        ({"size": -1}, "size -1: .*try 3"),
        ({"reach": 0.0}, "range 0.0: expected a positive number"),
        ({"reach": math.inf}, "range inf"),
        ({"reach": math.nan}, "range nan"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
    ],
)
def test_grids_that_are_refused(arguments, message):
    with pytest.raises(SignbitError, match=message):
        Grid(**arguments)


def test_images_have_every_class_in_its_share():
    assert np.bincount(choose_images(SOURCE.train, 50).labels).tolist() == [5] * 10
    assert len(choose_images(IMAGES, 1000)) == 40
    with pytest.raises(DataError, match="no image"):
        choose_images(IMAGES.subset(np.arange(0)), 3)


# --- a row ---


def row(network, y=0.25):
    directions = filter_directions(network.model, 0)
    positions = Grid(3).positions
    return loss_row(
        network.model, directions, positions, y, IMAGES, network.mean, network.std
    ), directions


def test_a_point_is_the_network_with_weights_moved_before_their_signs_are_taken():
    network, by_hand = trained(), trained()
    (loss, accuracy), (first, second) = row(network)
    before = by_hand.model[3].binary_weight()[0]
    with torch.no_grad():
        for name, parameter in by_hand.model.named_parameters():
            if name in first:
                parameter += 0.25 * second[name] - first[name]
    assert not torch.equal(by_hand.model[3].binary_weight()[0], before)  # bits have flipped
    wanted = classification.evaluate(by_hand.model, IMAGES, by_hand.mean, by_hand.std)
    assert loss[0] == pytest.approx(wanted.loss, rel=1e-5)
    assert accuracy[0] == pytest.approx(wanted.accuracy)
    assert loss[0] != loss[2]


def test_weights_are_restored_to_the_bit():
    network = trained()
    network.model[3].weight.data[0, 0, 0, 0] = -0.0
    before = weights_sha256(network.model)
    row(network)
    assert weights_sha256(network.model) == before


def test_weights_are_restored_after_an_error():
    network = trained()
    before = weights_sha256(network.model)
    calls = []

    def fail(module, inputs):
        calls.append(weights_sha256(module))
        if len(calls) == 2:
            raise KeyboardInterrupt

    network.model.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        row(network)
    assert before not in calls
    assert weights_sha256(network.model) == before


# --- smoothness ---


def bowl(size=21):
    x = np.linspace(-1, 1, size)
    y = x[:, None]
    return x, np.exp(0.3 + x - 0.2 * y + 2 * x**2 + 0.5 * x * y + y**2)


def test_a_bowl_is_smooth():
    x, loss = bowl()
    assert roughness(loss) == pytest.approx(0, abs=1e-12)
    assert quadratic_fit(loss, x) == pytest.approx(1, abs=1e-12)


def test_noise_is_rough():
    x, loss = bowl(51)
    noise = np.exp(np.random.default_rng(0).normal(size=(51, 51)))
    assert roughness(noise) == pytest.approx(1, abs=0.05)
    assert quadratic_fit(noise, x) < 0.02
    mixed = loss * noise**0.2
    assert 0.05 < roughness(mixed) < 0.5
    assert 0.5 < quadratic_fit(mixed, x) < 0.99


def test_waves_are_smooth_on_their_scale_alone():
    x, _ = bowl(51)
    waves = [np.exp(np.sin(k * x) + np.sin(k * x)[:, None]) for k in (2, 20)]
    assert roughness(waves[0]) < 0.001 < 0.02 < roughness(waves[1])


def test_roughness_sees_every_direction():
    stripes = np.exp(np.random.default_rng(0).normal(size=21)) * np.ones((21, 1))
    assert roughness(stripes) == pytest.approx(roughness(stripes.T))
    assert roughness(stripes) > 0.5


def test_smoothness_of_powers_is_the_same():
    _, loss = bowl()
    loss *= np.exp(np.random.default_rng(0).normal(0, 0.1, loss.shape))
    assert roughness(loss**3) == pytest.approx(roughness(loss))


def test_smoothness_leaves_out_what_is_not_finite():
    x, loss = bowl()
    loss[0, :5], loss[7, 7] = np.nan, np.inf
    assert roughness(loss) == pytest.approx(0, abs=1e-12)
    assert quadratic_fit(loss, x) == pytest.approx(1, abs=1e-12)


def test_smoothness_where_there_is_little_to_see():
    x = np.array([-1.0, 0, 1])
    assert (roughness(np.full((5, 5), 0.3)), quadratic_fit(np.full((3, 3), 0.3), x)) == (0, 1)
    assert (roughness(np.zeros((5, 5))), quadratic_fit(np.zeros((3, 3)), x)) == (0, 1)
    assert math.isnan(roughness(np.eye(3) + 1))
    assert math.isnan(roughness(np.full((5, 5), np.nan)))
    assert math.isnan(quadratic_fit(np.full((3, 3), np.nan), x))


# --- into a folder ---


@pytest.mark.usefixtures("undrawn")
def test_the_centre_is_the_plain_evaluation(tmp_path):
    network = trained()
    before = weights_sha256(network.model)
    found = measure(tmp_path, {"a": network})
    plain = classification.evaluate(network.model, IMAGES, network.mean, network.std)
    surface = found.surfaces["a"]
    assert surface.loss[1, 1] == plain.loss
    assert surface.accuracy[1, 1] == plain.accuracy
    assert len(np.unique(surface.loss)) == 9
    assert weights_sha256(network.model) == before
    assert found.to_dict()["results"]["a"]["loss"] == plain.loss


def test_what_is_written(tmp_path):
    found = measure(tmp_path, {"a": trained(), "b": trained(7)})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"landscape.npz", "landscape.json", "landscape.png"}
    assert json.loads((tmp_path / "landscape.json").read_text()) == found.to_dict()
    with np.load(tmp_path / "landscape.npz") as file:
        assert file["done"].all()
        assert np.array_equal(file["positions"], GRID.positions)
        for index, name in enumerate("ab"):
            assert np.array_equal(file["loss"][index], found.surfaces[name].loss)
            assert np.array_equal(file["accuracy"][index], found.surfaces[name].accuracy)
    assert Image.open(tmp_path / "landscape.png").width > 600
    assert not np.array_equal(found.surfaces["a"].loss, found.surfaces["b"].loss)


@pytest.mark.usefixtures("undrawn")
def test_the_same_seed_gives_the_same_bits(tmp_path):
    one, again = (measure(tmp_path / name) for name in "ab")
    assert np.array_equal(one.surfaces["a"].loss, again.surfaces["a"].loss)
    other = measure(tmp_path / "c", grid=Grid(3, 0.5, 5))
    assert other.surfaces["a"].loss[1, 1] == one.surfaces["a"].loss[1, 1]
    assert not np.array_equal(other.surfaces["a"].loss, one.surfaces["a"].loss)


def counted(monkeypatch, stop=None):
    """Count the rows that are measured; the one numbered `stop` is interrupted."""
    rows = []
    original = runs.loss_row

    def counting(*arguments, **options):
        if len(rows) == stop:
            raise KeyboardInterrupt
        rows.append(arguments[3])
        return original(*arguments, **options)

    monkeypatch.setattr(runs, "loss_row", counting)
    return rows


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch, stop):
    whole = measure(tmp_path / "whole", {"a": trained(), "b": trained(7)})
    with monkeypatch.context() as patch:
        counted(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "parts", {"a": trained(), "b": trained(7)})
    rows = counted(monkeypatch)
    resumed = measure(tmp_path / "parts", {"a": trained(), "b": trained(7)})
    assert len(rows) == 6 - stop
    for name, surface in whole.surfaces.items():
        assert np.array_equal(resumed.surfaces[name].loss, surface.loss)
        assert np.array_equal(resumed.surfaces[name].accuracy, surface.accuracy)
    assert resumed.settings == whole.settings


def test_a_whole_landscape_is_drawn_again_without_measuring(tmp_path, monkeypatch):
    before = measure(tmp_path)
    (tmp_path / "landscape.png").unlink()
    rows = counted(monkeypatch)
    again = measure(tmp_path)
    assert rows == []
    assert again.to_dict() == before.to_dict()
    assert (tmp_path / "landscape.png").exists()


def test_other_settings_are_refused_by_name(tmp_path, monkeypatch):
    measure(tmp_path)
    before = (tmp_path / "landscape.npz").read_bytes()
    rows = counted(monkeypatch)
    changes = {
        r"seed was 4, now 5\. Go on with the same ones, .* --restart": {"grid": Grid(3, 0.5, 5)},
        "size was 3, now 5": {"grid": Grid(5, 0.5, 4)},
        "range was 0.5, now 1.0": {"grid": Grid(3, 1.0, 4)},
        "split was 'train', now 'val'": {"split": "val"},
        "data was 'digits', now 'mnist'": {"data": "mnist"},
        "images was 40, now 39; images_sha256 was": {"dataset": IMAGES.subset(np.arange(39))},
        r"networks\.a\.weights_sha256 was": {"networks": {"a": trained(3)}},
        r"networks\.a\.mean\.0 was .*, now 0.25$|now 0.25\.": {
            "networks": {"a": trained(mean=(0.25,))}
        },
        r"networks\.a\.spec\.name was 'tiny', now 'x'": {
            "networks": {"a": trained(spec={"name": "x"})}
        },
        "networks were a, now a, b": {"networks": {"a": trained(), "b": trained(3)}},
    }
    for message, change in changes.items():
        with pytest.raises(SignbitError, match=message):
            measure(tmp_path, **change)
    torch.set_num_threads(2)  # conftest sets it back
    with pytest.raises(SignbitError, match="threads was 1, now 2"):
        measure(tmp_path)
    assert rows == []
    assert (tmp_path / "landscape.npz").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_other_pixels_are_other_images(tmp_path):
    measure(tmp_path)
    pixels = IMAGES.images.copy()
    pixels[3, 4, 4, 0] ^= 1
    with pytest.raises(SignbitError, match=r"settings: images_sha256 was"):
        measure(tmp_path, dataset=ImageDataset(pixels, IMAGES.labels))


@pytest.mark.usefixtures("undrawn")
def test_restart_begins_anew(tmp_path, monkeypatch):
    measure(tmp_path)
    with monkeypatch.context() as patch:
        counted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path, grid=Grid(3, 0.5, 6), restart=True)
    # What belongs to the old numbers does not outlive them.
    assert [path.name for path in tmp_path.iterdir()] == ["landscape.npz"]
    rows = counted(monkeypatch)
    found = measure(tmp_path, grid=Grid(3, 0.5, 5), restart=True)
    assert len(rows) == 3
    assert found.settings["seed"] == 5
    again = measure(tmp_path, grid=Grid(3, 0.5, 5))
    assert np.array_equal(again.surfaces["a"].loss, found.surfaces["a"].loss)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    measure(tmp_path)
    path = tmp_path / "landscape.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("nothing")
    else:
        np.savez(path, settings=np.array("{}"), loss=1, accuracy=1, done=1)
    with pytest.raises(SignbitError, match=r"landscape\.npz: damaged, or no landscape"):
        measure(tmp_path)
    assert measure(tmp_path, restart=True).surfaces["a"].loss.shape == (3, 3)


def test_losses_that_are_not_finite_are_kept_and_shown(tmp_path):
    network = trained()
    count = [0]

    def spoil(module, inputs, output):
        count[0] += 1
        return output * {2: torch.nan, 3: torch.inf}.get(count[0], 1)  # 1: before anything moves

    network.model.register_forward_hook(spoil)
    found = measure(tmp_path, {"a": network}, grid=Grid(3, 0.5))
    loss = found.surfaces["a"].loss
    assert np.isfinite(loss).sum() == 7
    summary = json.loads((tmp_path / "landscape.json").read_text())["results"]["a"]
    assert summary["points_not_finite"] == 2
    assert summary["roughness"] is None  # too few points
    assert summary["lowest_loss"] == np.nanmin(loss)
    count[0] = 100
    again = measure(tmp_path, {"a": network}, grid=Grid(3, 0.5)).surfaces["a"]
    assert np.array_equal(again.loss, loss, equal_nan=True)


def test_a_network_that_is_never_finite_is_no_crash(tmp_path):
    network = trained()
    network.model.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    summary = measure(tmp_path, {"a": network}).to_dict()["results"]["a"]
    assert summary["loss"] is None
    assert summary["points_not_finite"] == 9
    assert (tmp_path / "landscape.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_a_layer_sets_at_its_first_use_comes_from_the_trained_weights(tmp_path):
    def network():
        torch.manual_seed(2)
        conv = BinaryConv2d(1, 4, 3, weight_quantizer="learned")
        conv.weight_quantizer.initialised.fill_(False)
        conv.weight_quantizer._initialised = False
        layers = (conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return trained(model=nn.Sequential(*layers).eval())

    measured, plain = network(), network()
    surface = measure(tmp_path, {"a": measured}).surfaces["a"]
    wanted = classification.evaluate(plain.model, IMAGES, plain.mean, plain.std)
    assert surface.loss[1, 1] == wanted.loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": IMAGES.subset(np.arange(0))}, "no image to measure"),
        (
            {"networks": {"a": trained(), "b": trained(class_names=("x", "y"))}},
            "b was trained on other classes than a",
        ),
        ({"networks": {"a": trained(input_shape=(3, 8, 8))}}, r"a takes images of \(3, 8, 8\)"),
        ({"networks": {"a": trained(class_names=("x", "y"))}}, "labels outside the 2 classes"),
        ({"networks": {"a": trained(model=nn.Flatten())}}, "a: no convolution or linear layer"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_folder_is_made(tmp_path, arguments, message):
    with pytest.raises(SignbitError, match=message):
        measure(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_no_network_and_no_folder(tmp_path):
    with pytest.raises(SignbitError, match="no network"):
        measure_landscape({}, IMAGES, GRID, tmp_path, data="digits", split="train")
    (tmp_path / "file").write_text("")
    with pytest.raises(SignbitError, match="a file of that name is in the way"):
        measure(tmp_path / "file")
