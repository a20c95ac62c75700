"""Several devices: the gradients are one device's, runs resume, and failures anywhere end them."""

import multiprocessing

import pytest
import torch
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.errors import RecipeError, SignbitError
from signbit.training import parse_recipe, train

from .killable import RECIPE, tiny_network
from .networks import Double, Spoilt

SOURCE = load_source("digits").limited(150)


def quiet():
    return Console(quiet=True)


def one_step(devices):
    """A recipe of one step of plain gradient descent, with a rate of 1, on 32 images."""
    data = {**RECIPE["data"], "batch_size": 32}
    optimizer = {"name": "sgd", "lr": 1.0}
    stage = {
        "name": "only", "epochs": 1, "optimizer": optimizer, "schedule": {"name": "constant"},
    }  # fmt: skip
    tree = {**RECIPE, "data": data, "stages": [stage], "weights": "last", "devices": devices}
    return parse_recipe(tree)


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    gradients, rows = [], []
    for devices in (1, 2):
        model = Double()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        source = load_source("digits").limited(32)
        folder = tmp_path / str(devices)
        result = train(one_step(devices), source, folder, model=model, console=quiet())
        gradients.append({n: before[n] - p.detach() for n, p in model.named_parameters()})
        rows.append(result.history[0])
    one, two = gradients
    assert not two.pop("unused").any()
    for name, gradient in two.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(gradient, one[name], rtol=1e-9, atol=1e-12, msg=name)
    assert sum(bool(gradient.abs().max() > 1e-6) for gradient in two.values()) > 20
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-6), name
    assert not multiprocessing.active_children()


def two_devices(tmp_path, **changes):
    tree = {**RECIPE, "devices": 2, **changes}
    tree["stages"] = [
        {"name": "first", "epochs": 1, "binary_weights": False},
        {
            "name": "second",
            "epochs": 3,
            "loss": {"teachers": [{"name": "strong"}], "cache": str(tmp_path / "cache")},
        },
    ]
    return parse_recipe(tree)


def run(recipe, output, model=None, **arguments):
    torch.manual_seed(4)
    strong = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return train(
        recipe,
        SOURCE,
        output,
        model=model or tiny_network(),
        teachers={"strong": strong},
        console=quiet(),
        **arguments,
    )


@pytest.mark.slow
def test_a_run_that_fails_in_one_process_resumes(tmp_path):
    recipe = two_devices(tmp_path)
    whole = run(recipe, tmp_path / "whole")
    names = {str(p.relative_to(whole.output)) for p in whole.output.rglob("*") if p.is_file()}
    assert names == {
        "recipe.resolved.yaml", "versions.json", "metrics.csv", "metrics.json", "curves.png",
        "model.pt", "checkpoints/last.ckpt", "checkpoints/best.pt",
    }  # fmt: skip
    assert len((whole.output / "metrics.csv").read_text().splitlines()) == 1 + 4

    spoilt = Spoilt(rank=1, step=5, how="nan")
    with pytest.raises(
        SignbitError, match=r"diverged in epoch 3 \(the loss is nan\): lower stages"
    ):
        run(recipe, tmp_path / "spoilt", spoilt)
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()

    resumed = run(recipe, tmp_path / "spoilt", resume=True)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4]
    assert resumed.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    alone = run(two_devices(tmp_path, devices=1), tmp_path / "alone")  # takes the same cache
    assert alone.metrics["weights_sha256"] != whole.metrics["weights_sha256"]  # batch statistics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "error", "message"),
    [
        (1, "mistake", RuntimeError, "another process .* failed:(.|\n)*a mistake in the network"),
        (0, "mistake", KeyError, "a mistake in the network"),
        (1, "killed", RuntimeError, "another process of the run was killed"),
    ],
)
def test_a_failure_anywhere_ends_the_run(tmp_path, rank, how, error, message):
    with pytest.raises(error, match=message):
        run(two_devices(tmp_path), tmp_path / "out", Spoilt(rank, 1, how))
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()


def test_a_network_that_cannot_be_sent_is_refused(tmp_path):
    model = tiny_network()
    model.note = lambda: None
    with pytest.raises(SignbitError, match=r"devices: the network .* cannot be sent .*of a module"):
        run(two_devices(tmp_path), tmp_path / "out", model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, r"data\.batch_size \(64\) is of all devices .* multiple of that"),
        ({"devices": 64}, "at least 128"),
        ({"devices": 0}, "devices"),
    ],
)
def test_batches_that_cannot_be_shared(changes, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**RECIPE, **changes})


def test_data_that_cannot_be_shared(tmp_path):
    recipe = two_devices(tmp_path, data={"name": "digits", "batch_size": 256})
    with pytest.raises(RecipeError, match=r"batches of 256: there are 150 training images"):
        run(recipe, tmp_path / "out")
    recipe = two_devices(tmp_path, data={"name": "digits", "batch_size": 128}, devices=64)
    with pytest.raises(RecipeError, match="devices: 64 cannot share 50 validation images"):
        train(
            recipe,
            load_source("digits", val_size=50),
            tmp_path / "out",
            model=tiny_network(),
            teachers={"strong": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))},
            console=quiet(),
        )
    assert not (tmp_path / "out" / "recipe.resolved.yaml").exists()


def test_more_gpus_than_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(RecipeError, match="finds 1 GPUs here; set devices: 1, or accelerator: cpu"):
        run(two_devices(tmp_path), tmp_path / "out")


def test_a_process_of_a_group_starts_none(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(RecipeError, match="belongs to a process group already"):
        run(two_devices(tmp_path), tmp_path / "out")
