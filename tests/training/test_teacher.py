"""Distillation's teachers: their normalisation and size, turns in a run, and what is refused."""

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
from signbit.training.distillation import gap_sensitive_loss, mean_loss
from signbit.training.module import StagedModule
from signbit.training.recipe import TeacherRecipe
from signbit.training.run import make_loader
from signbit.training.teacher import Teacher, load_teacher, load_teachers

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
    # An empty image before anything starts, then the batches of the second stage, not of the first.
    assert seen == [False] * 5
    assert not any("teacher" in name for name in first.trained.model.state_dict())
    saved = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in saved} == {"model"}
    again = train(recipe, SOURCE, tmp_path / "b", model=tiny_network(), console=quiet())
    assert again.metrics["weights_sha256"] == first.metrics["weights_sha256"]
    tree = recipe.model_dump()
    tree["stages"][1]["loss"] = {}
    hard = train(parse_recipe(tree), SOURCE, tmp_path / "c", model=tiny_network(), console=quiet())
    assert hard.metrics["weights_sha256"] != first.metrics["weights_sha256"]


def test_wrong_checkpoints_are_named(tmp_path, checkpoint):
    missing = distilled(str(tmp_path / "none.pt"))
    with pytest.raises(SignbitError, match=r"loss\.teacher\.checkpoint: .*none\.pt: no such file"):
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

    fixed = False

    def create_model(name, pretrained):
        assert pretrained
        if name != "resnet34":
            raise RuntimeError(f"Unknown model ({name})")
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, outputs))
        model.pretrained_cfg = {
            "num_classes": classes, "input_size": size, "mean": (0.5,), "std": (0.5,),
            "fixed_input_size": fixed,
        }  # fmt: skip
        return model

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    classes, outputs, size = 10, 10, (1, 224, 224)
    assert load_teacher(recipe, SOURCE, "teacher")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    fixed = True
    message = (
        r"teacher\.timm: resnet34 takes 224x224 images, the data's are 8x8: an input_size of 224 "
    )
    with pytest.raises(RecipeError, match=message):
        load_teacher(recipe, SOURCE, "teacher")
    resized = recipe.model_copy(update={"input_size": 224})
    assert load_teacher(resized, SOURCE, "teacher").input_size == (224, 224)
    outputs = 9
    message = r"teacher\.input_size: for one image the teacher gives \(1, 9\), not .* \(1, 10\)"
    with pytest.raises(RecipeError, match=message):
        load_teacher(resized, SOURCE, "teacher")
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


class Constant(nn.Module):
    """Logits that do not depend on the image, and a note of every call."""

    def __init__(self, name, seen):
        super().__init__()
        torch.manual_seed(len(name))
        self.logits = nn.Parameter(torch.randn(1, 10))
        self.name = name
        self.seen = seen

    def __deepcopy__(self, memo):
        return Constant(self.name, self.seen)

    def forward(self, images):
        self.seen.append(self.name)
        return self.logits.expand(len(images), -1)


def with_teachers(**loss):
    tree = {**RECIPE, "weights": "last"}
    tree["stages"] = [{"name": "only", "epochs": 3, "loss": loss}]
    return parse_recipe(tree)


def test_assistants_take_turns_in_a_run(tmp_path):
    seen = []
    networks = {name: Constant(name, seen) for name in ("strong", "first", "second")}
    recipe = with_teachers(
        teachers=[{"name": "strong"}], assistants=[{"name": "first"}, {"name": "second"}]
    )
    train(recipe, SOURCE, tmp_path, model=tiny_network(), teachers=networks, console=quiet())
    steps = 2  # an epoch
    assert seen[:3] == ["strong", "first", "second"]  # tried once each, before anything starts
    assert seen[3:] == ["first", "strong"] * 2 * steps + ["second", "strong"] * steps


BOTH = [{"name": "strong"}, {"name": "other"}]
WARM = [BOTH[0], {**BOTH[1], "temperature": 3.0}]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"teachers": BOTH}, lambda s, z, y: gap_sensitive_loss(s, z)),
        ({"teachers": WARM}, lambda s, z, y: gap_sensitive_loss(s, z, [1.0, 3.0])),
        (
            {"teachers": BOTH, "reduction": "batch_mean"},
            lambda s, z, y: gap_sensitive_loss(s, z, reduction="batch_mean"),
        ),
        (
            {"teachers": WARM, "ensemble": "mean"},
            lambda s, z, y: mean_loss(s, z, [1.0, 3.0]),
        ),
        (
            {"teachers": BOTH, "label_weight": 0.5, "label_smoothing": 0.1},
            lambda s, z, y: gap_sensitive_loss(s, z) + 0.5 * classification.loss(s, y, 0.1),
        ),
    ],
)
def test_the_recipe_decides_the_loss(loss, expected):
    recipe = with_teachers(**loss)
    networks = {name: Constant(name, []) for name in ("strong", "other")}
    model = tiny_network()
    module = StagedModule(model, recipe, 2, load_teachers(recipe, SOURCE, networks))
    module.log = lambda *_, **__: None
    seen = []
    model.register_forward_hook(lambda m, i, output: seen.append(output.detach()))
    batch = next(iter(make_loader(recipe, SOURCE, "train", training=True)))
    found = module.training_step(batch, 0)
    soft = [networks[name].logits.detach().expand(64, -1) for name in ("strong", "other")]
    torch.testing.assert_close(found.detach(), expected(seen[0], soft, batch[1]))


def test_a_student_may_learn_from_what_it_was(tmp_path):
    student = tiny_network()
    before = student[0].weight.detach().clone()
    recipe = with_teachers(teacher={"name": "myself"})
    train(recipe, SOURCE, tmp_path, model=student, teachers={"myself": student}, console=quiet())
    assert not torch.equal(student[0].weight, before)


def test_networks_that_the_recipe_does_not_name(tmp_path):
    networks = {"strong": Constant("strong", [])}
    message = r"stages\.0\.loss\.teacher\.name: no network 'stronk' .*did you mean 'strong'"
    with pytest.raises(RecipeError, match=message):
        train(with_teachers(teacher={"name": "stronk"}), SOURCE, tmp_path / "a", teachers=networks)
    with pytest.raises(RecipeError, match=r"teachers\.0\.name: no network 'weak' .*; none was"):
        train(with_teachers(teachers=[{"name": "weak"}]), SOURCE, tmp_path / "a")
    with pytest.raises(
        RecipeError, match="no stage of the recipe has a teacher by the name of 'st"
    ):
        train(with_teachers(), SOURCE, tmp_path / "a", teachers=networks)
    assert not list((tmp_path / "a").iterdir())


def test_images_of_another_size_are_resized_only_when_that_is_asked_for(checkpoint):
    path = checkpoint(input_shape=(1, 16, 16))
    message = (
        r"loss\.teacher\.checkpoint: the teacher was trained on 16x16 images, the data's are 8x8: "
        r"an input_size of 16 resizes"
    )
    with pytest.raises(RecipeError, match=message):
        load_teacher(TeacherRecipe(checkpoint=path), SOURCE, "loss.teacher")
    teacher = load_teacher(TeacherRecipe(checkpoint=path, input_size=16), SOURCE, "loss.teacher")
    images = torch.randn(2, 1, 8, 8)
    larger = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", antialias=True)
    unresized = Teacher(teacher.model, (0.5,), (0.25,), SOURCE)
    torch.testing.assert_close(teacher(images), unresized(larger))


def test_a_network_that_cannot_take_the_images_is_named():
    networks = {"flat": nn.Sequential(nn.Flatten(), nn.Linear(5, 10))}
    message = r"loss\.teacher: the teacher cannot take images of 1 channels and 8x8 pixels \(Runt"
    with pytest.raises(RecipeError, match=message):
        load_teacher(TeacherRecipe(name="flat"), SOURCE, "loss.teacher", networks)
