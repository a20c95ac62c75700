"""Published checkpoints: names, wrappings, and every way in which a file may not fit."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import signbit
from signbit.checkpoints import import_checkpoint, published_state_dict, published_tensors
from signbit.checkpoints.ab_bnn import AB_BNN
from signbit.cli import main
from signbit.errors import CheckpointError
from signbit.training import load_trained
from tests.models import ab_reference as reference

# network, stem, classes -> parameters of the published file
PARAMETERS = {
    ("birealnet18", "imagenet", 1000): 11_685_288,
    ("xnornet18", "imagenet", 1000): 11_685_288,
    ("reactnet18", "imagenet", 1000): 11_699_624,
    ("reactnet34", "imagenet", 1000): 21_818_920,
    ("reactnet_a", "imagenet", 1000): 29_332_648,
    ("reactnet18", "cifar", 10): 11_184_074,
    ("reactnet_a", "cifar", 10): 28_317_898,
}
LISTINGS = Path(__file__).parents[3] / "shared" / "checkpoints"


@pytest.fixture(scope="module")
def state() -> reference.State:
    return reference.random_state("reactnet18", "cifar", 10)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def file(tmp_path: Path, state: reference.State) -> Path:
    return saved(tmp_path / "published.pt", state)


def refused(file: Path, *arguments: object, **named: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(file, *arguments, **named)
    assert str(caught.value).startswith(str(file))
    return str(caught.value).removeprefix(f"{file}: ")


# --- names and shapes ---


@pytest.mark.parametrize("network", reference.NETWORKS)
@pytest.mark.parametrize(("stem", "classes"), [("imagenet", 1000), ("cifar", 10)])
def test_names_and_shapes_are_the_published_ones(network: str, stem: str, classes: int) -> None:
    found = published_tensors(f"ab_{network}", stem=stem, num_classes=classes)
    assert found == reference.shapes(network, stem, classes)
    if total := PARAMETERS.get((network, stem, classes)):
        assert sum(map(math.prod, found.values())) == total


@pytest.mark.parametrize("network", reference.NETWORKS)
@pytest.mark.parametrize(
    ("data", "stem", "classes"), [("imagenet", "imagenet", 1000), ("cifar10", "cifar", 10)]
)
def test_names_are_those_of_the_listings(network: str, data: str, stem: str, classes: int) -> None:
    listing = LISTINGS / f"ab_{network}_{data}.json"
    if not listing.exists():
        pytest.skip("no listing of this file")
    tensors = json.loads(listing.read_text())["tensors"]
    found = published_tensors(f"ab_{network}", stem=stem, num_classes=classes)
    assert found == {name: tuple(shape) for name, shape in tensors.items()}


def test_every_registered_network_of_the_method_has_published_names() -> None:
    assert sorted(AB_BNN.models) == signbit.list_models("ab_*")


# --- round trips ---


def test_round_trip(file: Path, state: reference.State) -> None:
    imported = import_checkpoint(file)
    trained = imported.trained
    spec = {"num_classes": 10, "stem": "cifar", "activation": "qrprelu"}
    assert trained.spec == {"name": "ab_reactnet18", **spec}
    assert imported.inferred == {"model": "ab_reactnet18", **spec}
    assert trained.class_names == tuple("0123456789")
    assert trained.input_shape == (3, 32, 32)
    assert trained.mean == (0.485, 0.456, 0.406)
    assert trained.info["imported"]["file"] == "published.pt"
    assert "second training step" in imported.note
    assert not trained.model.training
    back = published_state_dict("ab_reactnet18", trained.model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {"state_dict": state}},
    ],
    ids=["module", "state_dict", "both", "twice"],
)
def test_wrappings(wrap, tmp_path: Path, state: reference.State) -> None:
    imported = import_checkpoint(saved(tmp_path / "wrapped.pt", wrap(state)))
    back = published_state_dict("ab_reactnet18", imported.trained.model)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_class_names_and_half_precision(tmp_path: Path, state: reference.State) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    names = [f"class {index}" for index in range(10)]
    trained = import_checkpoint(saved(tmp_path / "half.pt", half), class_names=names).trained
    assert trained.class_names == tuple(names)
    assert torch.equal(trained.model.head.bias, half["fc.bias"].float())


@pytest.mark.parametrize(
    ("old", "new", "activation"),
    [("prelu.L_alpha", "prelu.weight", "rprelu"), ("prelu.L_alpha", None, "rleakyrelu")],
)
def test_activations_of_the_ablation(
    old: str, new: str | None, activation: str, tmp_path: Path, state: reference.State
) -> None:
    changed = {
        name.replace(old, new or old): tensor
        for name, tensor in state.items()
        if new or old not in name
    }
    imported = import_checkpoint(saved(tmp_path / "ablation.pt", changed))
    assert imported.inferred["activation"] == activation
    back = published_state_dict("ab_reactnet18", imported.trained.model)
    assert back.keys() == changed.keys()


def test_stems_that_the_tensors_do_not_tell(tmp_path: Path) -> None:
    state = {
        name: torch.zeros(shape)
        for name, shape in reference.shapes("reactnet_a", "cifar", 2).items()
    }
    file = saved(tmp_path / "mobile.pt", state)
    message = refused(file)
    assert message.startswith("ab_reactnet_a, but its tensors do not tell the stem")
    assert "imagenet or cifar" in message
    assert import_checkpoint(file, stem="imagenet").trained.input_shape == (3, 224, 224)


# --- what does not fit ---


def test_another_depth(tmp_path: Path, file: Path) -> None:
    deep = {
        name: torch.zeros(shape)
        for name, shape in reference.shapes("reactnet34", "imagenet", 10).items()
    }
    message = refused(saved(tmp_path / "deep.pt", deep), "ab_reactnet18", "imagenet")
    assert message.startswith("layer1.4.move0.bias [1, 64, 1, 1] is in the file but not in ab_reac")
    assert message.endswith("the file fits ab_reactnet34 with stem imagenet")
    message = refused(file, "ab_reactnet34")
    assert message.startswith("layer1.4.move0.bias [1, 64, 1, 1] is missing for ab_reactnet34")
    assert message.endswith("the file fits ab_reactnet18 with stem cifar")


def test_another_stem(file: Path) -> None:
    message = refused(file, stem="imagenet")
    assert message.startswith("conv1.weight is [64, 3, 3, 3], but ab_reactnet18")
    assert "[64, 3, 7, 7]; the file fits ab_reactnet18 with stem cifar" in message
    with pytest.raises(CheckpointError, match="stem 'cifer': expected one of imagenet, cifar"):
        import_checkpoint(file, stem="cifer")


def test_another_family_of_names(file: Path) -> None:
    message = refused(file, "ab_xnornet18")
    assert message.startswith("prelu1.weight [64] is missing for ab_xnornet18")
    with pytest.raises(CheckpointError, match=r"no published checkpoint .* mean 'ab_reactnet18'"):
        import_checkpoint(file, "ab_reactnet19")


def test_other_classes(file: Path) -> None:
    message = refused(file, classes=100)
    assert message == "fc.weight is [10, 512]: the network has 10 classes, not 100"
    assert "2 class names" in refused(file, class_names=["a", "b"])


def test_a_missing_tensor(tmp_path: Path, state: reference.State) -> None:
    less = {name: tensor for name, tensor in state.items() if name != "layer3.1.conv1.gain"}
    message = refused(saved(tmp_path / "less.pt", less))
    assert message.startswith("layer3.1.conv1.gain [256, 1, 1, 1] is missing for ab_reactnet18")
    assert message.endswith("no network of A&B BNN fits the file")


def test_tensors_too_many_and_batch_norm(tmp_path: Path, state: reference.State) -> None:
    more = {**state, "layer1.0.bn.running_mean": torch.zeros(64)}
    message = refused(saved(tmp_path / "more.pt", more))
    assert message.startswith("layer1.0.bn.running_mean [64] is in the file but not in ab_reactne")
    assert message.endswith("the file's network has batch norm, which A&B BNN has not")
    foreign = {"fc.weight": torch.zeros(10, 4), "prelu2.weight": torch.zeros(512)}
    assert "missing for" in refused(saved(tmp_path / "foreign.pt", foreign))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite(value: float, tmp_path: Path, state: reference.State) -> None:
    broken = state["layer2.0.downsample.1.weight"].clone()
    broken[3, 5] = value
    changed = {**state, "layer2.0.downsample.1.weight": broken}
    message = refused(saved(tmp_path / "broken.pt", changed))
    assert message.startswith("layer2.0.downsample.1.weight holds NaN or infinity")


def test_integers(tmp_path: Path, state: reference.State) -> None:
    changed = {**state, "fc.bias": torch.zeros(10, dtype=torch.int64)}
    assert "fc.bias holds torch.int64" in refused(saved(tmp_path / "integers.pt", changed))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (lambda t: t.to_sparse(), "layer2.0.downsample.1.weight is a sparse tensor"),
        (lambda t: t.to("meta"), "layer2.0.downsample.1.weight is a tensor without numbers"),
        (
            lambda t: torch.nested.nested_tensor(list(t)),
            "layer2.0.downsample.1.weight is a nested tensor",
        ),
        (lambda t: t.to(torch.complex64), "layer2.0.downsample.1.weight holds torch.complex64"),
        (
            lambda t: t.double().index_fill(0, torch.tensor([3]), -1e300),
            "layer2.0.downsample.1.weight holds 1e+300, which is beyond torch.float32",
        ),
    ],
    ids=["sparse", "meta", "nested", "complex", "beyond float32"],
)
def test_tensors_that_are_not_plain(
    kind, message: str, tmp_path: Path, state: reference.State
) -> None:
    name = "layer2.0.downsample.1.weight"
    changed = {**state, name: kind(state[name])}
    assert refused(saved(tmp_path / "strange.pt", changed)).startswith(message)


def test_no_classes(tmp_path: Path, state: reference.State) -> None:
    none = {**state, "fc.weight": torch.zeros(0, 512), "fc.bias": torch.zeros(0)}
    message = refused(saved(tmp_path / "none.pt", none))
    assert message.startswith("fc.weight is [0, 512]: a classifier without classes")


# --- files ---


class Code:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["MARK"])),)


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    message = refused(saved(tmp_path / "code.pt", {"state_dict": Code()}))
    assert message.startswith("it holds Python objects beside tensors")
    assert not (tmp_path / "ran").exists()
    module = saved(tmp_path / "module.pt", torch.nn.Linear(2, 2))
    assert "save its state dict alone" in refused(module)


def test_damaged_files(tmp_path: Path, file: Path) -> None:
    content = file.read_bytes()
    old = tmp_path / "old.pt"
    torch.save({"fc.weight": torch.zeros(9)}, old, _use_new_zipfile_serialization=False)
    for name, data in {
        "half.pt": content[: len(content) // 2],
        "empty.pt": b"",
        "text.pt": b"<!DOCTYPE html>",
        "old-half.pt": old.read_bytes()[:-20],
    }.items():
        (tmp_path / name).write_bytes(data)
        assert refused(tmp_path / name).startswith("not a PyTorch checkpoint, or truncated")
    assert refused(tmp_path / "absent.pt") == "no such file"
    assert refused(tmp_path).startswith("a folder")


def test_contents_that_are_no_state_dict(tmp_path: Path, file: Path) -> None:
    assert refused(saved(tmp_path / "list.pt", [1])) == "no state dict in it (list)"
    message = refused(saved(tmp_path / "mixed.pt", {"w": torch.zeros(1), "epoch": 3}))
    assert message.startswith("not a state dict: 'epoch' is int")
    twice = {"w": torch.zeros(1), "module.w": torch.zeros(1)}
    assert "is there twice" in refused(saved(tmp_path / "twice.pt", twice))
    assert "no classifier fc.weight" in refused(saved(tmp_path / "w.pt", {"w": torch.zeros(1)}))
    own = tmp_path / "own.pt"
    import_checkpoint(file).trained.save(own)
    assert "signbit saved it" in refused(own)


# --- the verb ---


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_the_verb_writes_a_model(tmp_path: Path, file: Path, capsys, state) -> None:
    output = tmp_path / "model.pt"
    status, out, _ = call(capsys, "import-checkpoint", file, "-o", output, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["inferred"]["model"] == "ab_reactnet18"
    assert report["parameters"] == 11_184_074
    trained = load_trained(output)
    assert torch.equal(trained.model.head.weight, state["fc.weight"])
    status, out, _ = call(
        capsys, "import-checkpoint", file, "-o", output, "--model", "ab_reactnet18"
    )
    assert status == 0
    assert "ab_reactnet18 (inferred)" not in out
    assert "cifar (inferred)" in out


def test_the_verb_refuses(tmp_path: Path, file: Path, capsys) -> None:
    output = tmp_path / "model.pt"
    status, _, err = call(
        capsys, "import-checkpoint", file, "-o", output, "--model", "ab_reactnet34"
    )
    assert status == 2
    assert "layer1.4.move0.bias" in err
    assert not output.exists()
    status, _, err = call(capsys, "import-checkpoint", file, "-o", file)
    assert status == 2
    assert "is the checkpoint itself" in err
    status, _, err = call(capsys, "import-checkpoint", file, "-o", tmp_path / "no" / "model.pt")
    assert status == 2
    assert "not a file that can be written" in err


def test_names_of_classes_from_a_data_set(tmp_path: Path, capsys) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / "data" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    state = reference.random_state("xnornet18", "cifar", 2)
    file, output = saved(tmp_path / "two.pt", state), tmp_path / "model.pt"
    arguments = ("import-checkpoint", file, "-o", output, "--data", tmp_path / "data")
    assert call(capsys, *arguments)[0] == 0
    assert load_trained(output).class_names == ("cat", "dog")
    status, out, _ = call(capsys, "eval", output, "--data", tmp_path / "data", "--json")
    assert status == 0
    assert json.loads(out)["data"] == "folder"
    state = reference.random_state("xnornet18", "cifar", 3)
    saved(file, state)
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "2 classes, but the checkpoint has 3" in err
