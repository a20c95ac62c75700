"""Recipes: what is right is read, and what is wrong is named with its path."""

import copy
from pathlib import Path

import pytest
import yaml

from signbit.errors import RecipeError
from signbit.training import load_recipe, parse_recipe
from signbit.training.checks import check_data
from signbit.training.recipe import StageRecipe
from signbit.training.schedule import assistant_at, learning_rate, teachers_at

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
GOOD = {
    "data": {"name": "digits"},
    "model": {"name": "bineal18"},
    "stages": [{"name": "one", "epochs": 2}, {"name": "two", "epochs": 3}],
}


def changed(path, value):
    tree = copy.deepcopy(GOOD)
    node = tree
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[int(last) if isinstance(node, list) else last] = value
    return tree


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_own_recipes_are_right(path):
    recipe = load_recipe(path)
    assert recipe.epochs > 0
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_there_are_recipes():
    assert {"digits", "cifar10-quick"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "sed: unknown key; did you mean 'seed'"),
        ("stages.1.optimiser", {}, "stages.1.optimiser: unknown key; did you mean 'optimizer'"),
        ("data.augment.flipp", True, "data.augment.flipp: unknown key; did you mean 'flip'"),
        ("model.widht", 1, "model.widht: unknown key; did you mean 'width'"),
        ("zzz", 1, "zzz: unknown key; known: task, seed"),
        ("stages.0.optimizer.name", "adamm", "'adamm' is not one of adam, adamw, sgd; did you"),
        (
            "stages.0.optimizer.lr",
            0,
            "stages.0.optimizer.lr: input should be greater than 0, got 0",
        ),
        ("stages.0.optimizer.lr", float("nan"), "finite"),
        ("stages.0.optimizer.lr", "fast", "stages.0.optimizer.lr: .*got 'fast'"),
        ("stages.0.optimizer.momentum", 0.9, "momentum belongs to sgd, not to adam"),
        ("stages.0.schedule.warmup_epochs", 2, "must be less than epochs"),
        ("stages.0.epochs", 0, "stages.0.epochs: .*got 0"),
        ("stages.0.epochs", 1.5, "stages.0.epochs"),
        ("stages.1.name", "one", "names must differ"),
        ("stages.1.binary_weights", False, "would not be binary"),
        ("stages", [], "stages"),
        ("stages.0.loss.label_smoothing", 1, "stages.0.loss.label_smoothing"),
        ("stages.0.loss.teacher", {}, "stages.0.loss.teacher: give either checkpoint or timm"),
        (
            "stages.0.loss.teacher",
            {"checkpoint": "a", "timm": "b"},
            "stages.0.loss.teacher: give either checkpoint or timm",
        ),
        ("stages.0.loss.teacher", {"timm": "a", "temperature": 0}, "teacher.temperature: .*got 0"),
        ("stages.0.loss.teacher", {"timm": "a", "name": "b"}, "give either checkpoint or timm"),
        ("stages.0.loss.teachers", [{"tim": "a"}], "loss.teachers.0.tim: .*did you mean 'timm'"),
        ("stages.0.loss.assistants", [{}], "loss.assistants.0: give either checkpoint or timm"),
        ("stages.0.loss.assistants", [{"timm": "a"}], "beside a strong teacher, which is missing"),
        (
            "stages.0.loss",
            {"teacher": {"timm": "a"}, "teachers": [{"timm": "b"}]},
            "stages.0.loss: teacher is the short form of teachers",
        ),
        (
            "stages.0.loss",
            {"teacher": {"timm": "a"}, "assistants": [{"timm": b} for b in "bcd"]},
            "loss.assistants: 3 cannot take turns in 2 epochs",
        ),
        (
            "stages.0.loss",
            {"teacher": {"timm": "a"}, "ensemble": "mean", "reduction": "batch_mean"},
            "reduction: batch_mean is of ensemble: gap_sensitive",
        ),
        ("stages.0.loss.label_weight", 0.5, "label_weight is of distillation: there are no teach"),
        ("stages.0.loss.ensemble", "mean", "ensemble is of distillation"),
        ("stages.0.loss.teacher.tim", "a", "stages.0.loss.teacher.tim: .*did you mean 'timm'"),
        (
            "stages.0.loss",
            {"label_smoothing": 0.1, "teacher": {"timm": "a"}},
            "label_smoothing is of hard labels",
        ),
        ("stages.0.optimizer.agc", {}, "stages.0.optimizer.agc.clip_factor: missing"),
        ("stages.0.optimizer.agc.clip_factor", 0, "agc.clip_factor: .*greater than 0, got 0"),
        ("stages.0.optimizer.agc", {"clip_factor": 1, "eps": -1}, "stages.0.optimizer.agc.eps"),
        ("stages.0.optimizer.lr_scale", {"head.*": 0}, r"optimizer.lr_scale.head.\*: .*got 0"),
        ("stages.0.optimizer.decay_exclude", "head.*", "stages.0.optimizer.decay_exclude"),
        ("stages.0.schedule.per_epoch", "often", "stages.0.schedule.per_epoch"),
        ("stages.0.schedule.warmup_lr", 0.0001, "there is no warm-up"),
        ("stages.0.schedule.final_lr", 5.0, r"final_lr \(5\) is above optimizer.lr"),
        ("stages.0.optimizer.clip_norm", 0, "stages.0.optimizer.clip_norm"),
        ("stages.0.optimizer.decays", {"*": -1}, "stages.0.optimizer.decays"),
        ("data", {}, "data.name: missing"),
        ("model.options", {"num_classes": 3}, "options.num_classes: comes from the data"),
        ("model.options", {"width": 3}, "options.width: write it beside options"),
        ("precision", "16", "'16' is not one of 32, bf16"),
        ("threads", 0, "threads"),
    ],
)
def test_wrong_recipes_are_named(path, value, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(changed(path, value), "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")


def test_all_problems_are_told_at_once():
    tree = changed("sed", 1)
    tree["stages"][0]["epochs"] = -1
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree)
    assert len(str(caught.value).splitlines()) == 2


def write(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_overrides_change_the_tree_and_are_checked(tmp_path):
    path = write(tmp_path, yaml.safe_dump(GOOD))
    recipe = load_recipe(
        path, ["stages.1.epochs=7", "data.augment.flip=true", "stages.0.optimizer.lr=1e-4"]
    )
    assert recipe.stages[1].epochs == 7
    assert recipe.data.augment.flip is True
    assert recipe.stages[0].optimizer.lr == 1e-4
    for override, message in (
        ("stages.5.epochs=1", "stages has items 0 to 1"),
        ("stages.0.epoch=1", "stages.0.epoch: unknown key; did you mean 'epochs'"),
        ("seed", "dotted.path=value"),
        ("stages..x=1", "dotted.path=value"),
        ("stages.0.name.x=1", "unknown|valid string"),
        ("seed=[", "not YAML"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "a recipe is a mapping, this is list"),
        ("", "a recipe is a mapping"),
        ("seed: 1\nseed: 2\n", "'seed' stands twice"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(tmp_path, text))
    assert "r.yaml" in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: not readable"):
        load_recipe(tmp_path / "none.yaml")


def test_stage_of_an_epoch():
    recipe = parse_recipe(GOOD)
    found = [recipe.stage_at(epoch) for epoch in range(6)]
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]


def rates(name, warmup=0.0, epochs=4, steps=5, per_epoch=False):
    stage = StageRecipe.model_validate(
        {
            "name": "s",
            "epochs": epochs,
            "optimizer": {"lr": 2.0},
            "schedule": {"name": name, "warmup_epochs": warmup, "per_epoch": per_epoch},
        }
    )
    return [learning_rate(stage, step, steps) for step in range(epochs * steps)]


def test_schedules_follow_their_formulas():
    assert rates("constant") == [2.0] * 20
    assert rates("linear") == pytest.approx([2 * (1 - i / 20) for i in range(20)])
    cosine = rates("cosine")
    assert cosine[0] == 2.0
    assert cosine[10] == pytest.approx(1.0)
    assert 0 < cosine[-1] < 0.02


def test_rates_by_epoch_stand_still_within_one():
    assert rates("linear", per_epoch=True) == pytest.approx(
        [2 * (1 - epoch / 4) for epoch in range(4) for _ in range(5)]
    )
    assert rates("constant", per_epoch=True) == [2.0] * 20
    assert rates("cosine", per_epoch=True)[10:15] == pytest.approx([1.0] * 5)
    # A warm-up that ends within an epoch: the peak until the next one.
    values = rates("linear", warmup=0.4, per_epoch=True)
    assert values[:5] == pytest.approx([2 / 3, 4 / 3, 2.0, 2.0, 2.0])
    assert values[5:10] == pytest.approx([2 * (1 - 3 / 18)] * 5)


def test_rates_start_and_end_where_they_should():
    stage = StageRecipe.model_validate(
        {
            "name": "s",
            "epochs": 4,
            "optimizer": {"lr": 2.0},
            "schedule": {"warmup_epochs": 1, "warmup_lr": 0.5, "final_lr": 0.25},
        }
    )
    values = [learning_rate(stage, step, 4) for step in range(16)]
    assert values[:5] == pytest.approx([0.8, 1.1, 1.4, 1.7, 2.0])
    assert values[10] == pytest.approx((2.0 + 0.25) / 2)
    assert learning_rate(stage, 16, 4) == pytest.approx(0.25)


def test_warmup_rises_to_the_peak():
    values = rates("linear", warmup=1)
    assert values[:6] == pytest.approx([2 / 6, 4 / 6, 6 / 6, 8 / 6, 10 / 6, 2.0])
    assert values[6] == pytest.approx(2 * (1 - 1 / 15))


@pytest.mark.parametrize(
    ("epochs", "assistants", "turns"),
    [
        (6, 1, [0, 0, 0, 0, 0, 0]),
        (6, 2, [0, 0, 0, 1, 1, 1]),
        (6, 3, [0, 0, 1, 1, 2, 2]),
        (7, 3, [0, 0, 0, 1, 1, 2, 2]),
        (3, 3, [0, 1, 2]),
    ],
)
def test_assistants_take_turns_of_equal_length(epochs, assistants, turns):
    assert [assistant_at(epoch, epochs, assistants) for epoch in range(epochs)] == turns


def test_turns_never_differ_by_more_than_an_epoch():
    for epochs in range(1, 40):
        for assistants in range(1, epochs + 1):
            turns = [assistant_at(epoch, epochs, assistants) for epoch in range(epochs)]
            lengths = [turns.count(each) for each in range(assistants)]
            assert turns == sorted(turns)
            assert max(lengths) - min(lengths) <= (epochs % assistants != 0)


@pytest.mark.parametrize(("epoch", "assistants"), [(4, 2), (-1, 2), (0, 5), (0, 0)])
def test_turns_outside_a_stage_are_errors(epoch, assistants):
    with pytest.raises(ValueError, match=r"cannot share 4 epochs|none of a stage of 4"):
        assistant_at(epoch, 4, assistants)


def test_the_fixed_teacher_stands_beside_each_assistant():
    loss = {"teacher": {"timm": "strong"}, "assistants": [{"timm": "a"}, {"timm": "b"}]}
    stage = StageRecipe.model_validate({"name": "x", "epochs": 4, "loss": loss})
    names = [[teacher.timm for teacher in teachers_at(stage, epoch)] for epoch in range(4)]
    assert names == [["a", "strong"]] * 2 + [["b", "strong"]] * 2
    assert teachers_at(StageRecipe(name="x", epochs=4), 0) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.name", "cifar", "data.name: classification has no source 'cifar'; did you mean"),
        ("data.scale", 2, "data.scale: classification does not read it, leave it out"),
        ("data.augment.rotate", True, "data.augment.rotate: classification does not read it"),
    ],
)
def test_data_that_the_task_does_not_know_is_refused(path, value, message):
    recipe = parse_recipe(changed(path, value))
    with pytest.raises(RecipeError, match=message):
        check_data(recipe)


def test_smoothed_labels_are_of_classification():
    tree = changed("stages.1.loss.label_smoothing", 0.1) | {"task": "detection"}
    with pytest.raises(RecipeError, match=r"stages.1.loss: .*not of detection"):
        parse_recipe(tree)
