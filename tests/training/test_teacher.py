"""Distillation: the loss, the teacher's own normalisation, and what is refused."""

import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.errors import RecipeError, SignbitError
from signbit.tasks import classification
from signbit.training import TrainedModel, parse_recipe, train
from signbit.training.recipe import TeacherRecipe
from signbit.training.teacher import Teacher, load_teacher

from .killable import RECIPE, tiny_network

SOURCE = load_source("digits").limited(150)
SPEC = {"name": "resnet18", "num_classes": 10, "stem": "cifar", "width": 0.0625, "in_channels": 1}


def quiet():
    return Console(quiet=True)


@pytest.fixture
def checkpoint(tmp_path):
    from signbit.models import create_model

    def save(**changes):
        torch.manual_seed(0)
        content = {
            "model": create_model(**SPEC),
            "spec": SPEC,
            "class_names": SOURCE.class_names,
            "mean": (0.5,),
            "std": (0.25,),
            "input_shape": (1, 8, 8),
            **changes,
        }
        path = tmp_path / "teacher.pt"
        TrainedModel(**content).save(path)
        return str(path)

    return save


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_the_cross_entropy_of_both_distributions(temperature):
    student = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 5, dtype=torch.float64)
    loss = classification.soft_label_loss(student, teacher, temperature)
    p = torch.softmax(teacher / temperature, 1)
    log_q = torch.log_softmax(student / temperature, 1)
    torch.testing.assert_close(loss, temperature**2 * -(p * log_q).sum(1).mean())
    loss.backward()
    torch.testing.assert_close(student.grad, temperature * (log_q.exp() - p) / 6)


def test_teacher_sees_its_own_normalisation():
    teacher = Teacher(nn.Identity(), (0.5,), (0.25,), SOURCE)
    pixels = torch.rand(2, 1, 8, 8)
    batch = (pixels - SOURCE.mean[0]) / SOURCE.std[0]
    torch.testing.assert_close(teacher(batch), (pixels - 0.5) / 0.25)


def test_teacher_is_frozen(checkpoint):
    teacher = load_teacher(TeacherRecipe(checkpoint=checkpoint()), SOURCE, "loss.teacher")
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert teacher(torch.randn(3, 1, 8, 8)).shape == (3, 10)


def distilled(path):
    tree = {**RECIPE, "weights": "last"}
    tree["stages"] = [
        {"name": "first", "epochs": 1, "binary_weights": False},
        {
            "name": "second",
            "epochs": 2,
            "loss": {"teacher": {"checkpoint": path, "temperature": 2.0}},
        },
    ]
    return parse_recipe(tree)


def test_training_with_a_teacher(tmp_path, checkpoint, monkeypatch):
    from signbit.training import teacher as module

    seen = []
    call = module.Teacher.__call__

    def recorded(self, images):
        seen.append(self.model.training)
        return call(self, images)

    monkeypatch.setattr(module.Teacher, "__call__", recorded)
    recipe = distilled(checkpoint())
    first = train(recipe, SOURCE, tmp_path / "a", model=tiny_network(), console=quiet())
    assert seen == [False] * 4  # the batches of the second stage, not of the first
    assert not any("teacher" in name for name in first.trained.model.state_dict())
    saved = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in saved} <= {"model", "train_accuracy", "val_accuracy"}
    again = train(recipe, SOURCE, tmp_path / "b", model=tiny_network(), console=quiet())
    assert again.metrics["weights_sha256"] == first.metrics["weights_sha256"]
    tree = recipe.model_dump()
    tree["stages"][1]["loss"] = {}
    hard = train(parse_recipe(tree), SOURCE, tmp_path / "c", model=tiny_network(), console=quiet())
    assert hard.metrics["weights_sha256"] != first.metrics["weights_sha256"]


def test_wrong_checkpoints_are_named(tmp_path, checkpoint):
    missing = distilled(str(tmp_path / "none.pt"))
    with pytest.raises(SignbitError, match=r"none\.pt: no such file"):
        train(missing, SOURCE, tmp_path / "out", model=tiny_network(), console=quiet())
    names = ("a", *SOURCE.class_names[1:])
    for changes, message in (
        ({"class_names": names}, r"loss\.teacher\.checkpoint: the teacher's classes are not"),
        ({"input_shape": (3, 8, 8)}, r"the teacher takes 3 channels, the data have 1"),
    ):
        recipe = TeacherRecipe(checkpoint=checkpoint(**changes))
        with pytest.raises(RecipeError, match=message):
            load_teacher(recipe, SOURCE, "stages.0.loss.teacher")


def test_timm_is_loaded_when_it_is_asked_for(monkeypatch):
    recipe = TeacherRecipe(timm="resnet34")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RecipeError, match=r'teacher\.timm: needs the timm .*"signbit\[teachers\]"'):
        load_teacher(recipe, SOURCE, "teacher")

    def create_model(name, pretrained):
        assert pretrained
        if name != "resnet34":
            raise RuntimeError(f"Unknown model ({name})")
        model = nn.Flatten()
        model.pretrained_cfg = {
            "num_classes": classes, "input_size": size, "mean": (0.5,), "std": (0.5,)
        }  # fmt: skip
        return model

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    classes, size = 10, (1, 224, 224)
    assert load_teacher(recipe, SOURCE, "teacher")(torch.zeros(2, 1, 3, 3)).shape == (2, 9)
    size = (3, 224, 224)
    with pytest.raises(RecipeError, match="resnet34 takes 3 channels, the data have 1"):
        load_teacher(recipe, SOURCE, "teacher")
    classes = 1000
    with pytest.raises(RecipeError, match="resnet34 tells 1000 classes apart, the data have 10"):
        load_teacher(recipe, SOURCE, "teacher")
    with pytest.raises(RecipeError, match=r"teacher\.timm: Unknown model \(resnet43\)"):
        load_teacher(TeacherRecipe(timm="resnet43"), SOURCE, "teacher")


class HubError(Exception):
    """As the HTTP clients of hubs raise them: of no class of Python's own."""


@pytest.mark.parametrize("error", [OSError("no connection\nmore"), HubError("no connection")])
def test_weights_that_timm_cannot_load(error, monkeypatch):
    def create_model(name, pretrained):
        raise error

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    message = (
        rf"teacher\.timm: the weights of resnet34 cannot be loaded \({type(error).__name__}: no "
        r"connection\): .*connect to the internet .* teacher\.checkpoint"
    )
    with pytest.raises(RecipeError, match=message):
        load_teacher(TeacherRecipe(timm="resnet34"), SOURCE, "teacher")
