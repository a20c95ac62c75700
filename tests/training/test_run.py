"""What a run refuses before it starts, and what it leaves behind."""

import csv
import json
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.errors import RecipeError, SignbitError
from signbit.training import load_recipe, load_trained, parse_recipe, train, weights_sha256
from signbit.training.checks import check_model
from signbit.training.module import make_optimizer
from signbit.training.output import prepare_output
from signbit.training.recipe import OptimizerRecipe
from signbit.training.run import model_spec

from .killable import RECIPE, tiny_network

SOURCE = load_source("digits").limited(150)


def recipe(**changes):
    tree = {**RECIPE, "weights": "best", **changes}
    tree["stages"] = [
        {"name": "first", "epochs": 1, "binary_weights": False},
        {"name": "second", "epochs": 2, "optimizer": {"lr": 0.01}},
    ]
    return parse_recipe(tree)


def quiet():
    return Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "deep" / "er"
    return train(recipe(), SOURCE, folder, model=tiny_network(), console=quiet())


def test_everything_is_written(run):
    names = {str(p.relative_to(run.output)) for p in run.output.rglob("*") if p.is_file()}
    assert names == {
        "recipe.resolved.yaml",
        "versions.json",
        "metrics.csv",
        "metrics.json",
        "curves.png",
        "model.pt",
        "checkpoints/last.ckpt",
        "checkpoints/best.pt",
    }
    assert load_recipe(run.output / "recipe.resolved.yaml") == recipe()
    versions = json.loads((run.output / "versions.json").read_text())
    assert versions["torch"].startswith(torch.__version__.partition("+")[0])
    assert (run.output / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (run.output / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["first", "second", "second"]


def test_metrics_are_measured(run):
    metrics = json.loads((run.output / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics["images"] == {"train": 150, "val": 143, "test": 150}
    assert metrics["weights_sha256"] == weights_sha256(run.trained.model)


def test_best_weights_are_of_the_last_stage(run):
    binary = [row for row in run.history if row["stage"] == "second"]
    best = max(binary, key=lambda row: row["val_accuracy"])
    assert run.metrics["weights_epoch"] == best["epoch"] in (2, 3)


def test_eight_bit_ranges_are_frozen(run):
    from signbit.nn import QuantLayer

    layers = [m for m in run.trained.model.modules() if isinstance(m, QuantLayer)]
    assert len(layers) == 2
    assert all(bool(layer.frozen) for layer in layers)


def test_saved_model_is_the_trained_one(run):
    loaded = load_trained(run.output, build=lambda spec: tiny_network())
    assert loaded.class_names == SOURCE.class_names
    assert loaded.input_shape == (1, 8, 8)
    assert loaded.mean == SOURCE.mean
    assert loaded.std == SOURCE.std
    assert loaded.info["metrics"] == run.metrics
    assert weights_sha256(loaded.model) == run.metrics["weights_sha256"]
    image = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded.model(image), run.trained.model.eval()(image))


def test_weights_hash_sees_every_bit():
    model = nn.Linear(3, 2)
    before = weights_sha256(model)
    with torch.no_grad():
        model.weight[1, 2] = torch.nextafter(model.weight[1, 2], torch.tensor(9.0))
    assert weights_sha256(model) != before


def test_another_run_in_the_folder_is_refused(run):
    with pytest.raises(SignbitError, match="holds a run already: go on with --resume"):
        train(recipe(), SOURCE, run.output, model=tiny_network(), console=quiet())


def test_resuming_a_complete_run_changes_nothing(run):
    again = train(recipe(), SOURCE, run.output, model=tiny_network(), console=quiet(), resume=True)
    assert again.metrics["weights_sha256"] == run.metrics["weights_sha256"]
    assert again.history == run.history


def test_resuming_with_another_recipe_names_the_difference(run):
    with pytest.raises(SignbitError, match=r"seed was 5, now 6"):
        prepare_output(run.output, recipe(seed=6), resume=True)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(SignbitError, match="no run to resume"):
        prepare_output(tmp_path / "new", recipe(), resume=True)


def test_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SignbitError, match="a file of that name is in the way"):
        prepare_output(tmp_path / "out", recipe(), resume=False)


def test_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SignbitError, match=r"cannot be written \(Not a directory\)"):
        prepare_output(tmp_path / "file" / "below", recipe(), resume=False)


def test_unwritable_folder_is_refused_by_trying(tmp_path, monkeypatch):
    # Root may write where others may not, so permission bits would prove nothing here.
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_bytes", denied)
    with pytest.raises(SignbitError, match=r"cannot be written \(Permission denied\)"):
        prepare_output(tmp_path / "out", recipe(), resume=False)


def test_unknown_model_gets_the_nearest_name(tmp_path):
    bad = recipe(model={"name": "bineal81"})
    with pytest.raises(RecipeError, match="did you mean 'bineal18'"):
        train(bad, SOURCE, tmp_path / "out", console=quiet())
    assert not (tmp_path / "out" / "recipe.resolved.yaml").exists()


def test_argument_that_the_model_lacks_is_an_error(tmp_path, monkeypatch):
    bad = recipe(model={"name": "bineal18", "options": {"surogate": "x"}})
    message = r"model\.options\.surogate: bineal18 has no such option; did you mean 'surrogate'"
    with pytest.raises(RecipeError, match=message):
        train(bad, SOURCE, tmp_path / "out", console=quiet())
    other = recipe(model={"name": "resnet18", "options": {"x": 1}}).model
    with pytest.raises(RecipeError, match=r"model\.options\.x: .*known: stem_kernel"):
        check_model(other)
    plain = ["num_classes", "stem", "width", "in_channels"]
    monkeypatch.setattr("signbit.models.registry.model_arguments", lambda name: plain)
    with pytest.raises(RecipeError, match=r"model\.options\.x: .*it has none"):
        check_model(other)


def test_a_network_without_a_choice_of_stems_gets_none():
    assert "stem" not in model_spec(recipe(model={"name": "r2d2"}).model, {"in_channels": 3})
    assert model_spec(recipe().model, {})["stem"] == "cifar"
    with pytest.raises(RecipeError, match=r"model\.stem: r2d2 has one stem only"):
        check_model(recipe(model={"name": "r2d2", "stem": "imagenet"}).model)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"accelerator": "gpu"}, "PyTorch finds no GPU"), ({"tensorboard": True}, "tensorboard pack")],
)
def test_a_machine_that_lacks_something_leaves_the_folder_free(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = tmp_path / "out"
    with pytest.raises(RecipeError, match=message):
        train(recipe(**change), SOURCE, out, model=tiny_network(), console=quiet())
    prepare_output(out, recipe(), resume=False)


def test_images_of_a_size_that_the_network_cannot_take(tmp_path):
    odd = recipe(model={"name": "reactnet18", "width": 0.1})
    source = load_source("digits", image_size=9).limited(150)
    with pytest.raises(RecipeError, match=r"data\.image_size: .* 9x9 images; try multiples"):
        train(odd, source, tmp_path / "out", console=quiet())
    assert not (tmp_path / "out" / "recipe.resolved.yaml").exists()


def diverging(**changes):
    stages = [
        {"name": "one", "epochs": 1},
        {"name": "two", "epochs": 2, "optimizer": {"name": "sgd", "lr": 100, "momentum": 0.99}},
    ]
    return parse_recipe({**recipe().model_dump(), "stages": stages, **changes})


def test_activations_that_diverge_name_epoch_and_rate(tmp_path):
    model = tiny_network()
    steps = []

    def spoil(module, inputs):
        if module.training:
            steps.append(1)
        return (inputs[0] * (torch.inf if len(steps) == 4 else 1),)  # in the second epoch

    model[8].register_forward_pre_hook(spoil)  # the classifier, which has 8 bits
    message = r"diverged in epoch 2 \(.*finite.*\): lower stages\.1\.optimizer\.lr, now 100, "
    with pytest.raises(SignbitError, match=message):
        train(diverging(), SOURCE, tmp_path / "out", model=model, console=quiet())


@pytest.mark.parametrize("when", ["training", "validation"])
def test_a_loss_that_diverges_names_epoch_and_rate(tmp_path, when):
    model = tiny_network()

    def spoil(module, inputs, output):
        return output * (torch.nan if module.training == (when == "training") else 1)

    model.register_forward_hook(spoil)
    with pytest.raises(SignbitError, match=r"diverged in epoch 1 \(the loss is nan\)"):
        train(diverging(), SOURCE, tmp_path / "out", model=model, console=quiet())
    assert not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()


def test_ctrl_c_tells_how_to_go_on(tmp_path):
    model = tiny_network()

    def press(module, inputs):
        if module.training:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(press)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SignbitError, match=r"interrupted; go on with --resume --output .*out"):
        train(recipe(), SOURCE, tmp_path / "out", model=model, console=quiet())
    assert signal.getsignal(signal.SIGINT) == before


def test_registry_model_is_rebuilt_from_its_file(tmp_path):
    from signbit.models import create_model
    from signbit.training import TrainedModel

    spec = {"name": "bineal18", "num_classes": 3, "stem": "cifar", "width": 0.125}
    model = create_model(**spec).eval()
    TrainedModel(model, spec, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3, (3, 8, 8)).save(
        tmp_path / "model.pt"
    )
    image = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(load_trained(tmp_path / "model.pt").model(image), model(image))


def test_broken_model_files_are_named(tmp_path):
    file = tmp_path / "model.pt"
    with pytest.raises(SignbitError, match=r"model\.pt: no such file"):
        load_trained(file)
    with pytest.raises(SignbitError, match="is that run complete"):
        load_trained(tmp_path)
    file.write_bytes(b"PK no model")
    with pytest.raises(SignbitError, match="not a readable model file"):
        load_trained(file)
    torch.save({"a": 1}, file)
    with pytest.raises(SignbitError, match="not a model that signbit saved"):
        load_trained(file)


def test_code_in_a_model_file_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"format": Trap()}, tmp_path / "model.pt")
    with pytest.raises(SignbitError, match="not a readable model file"):
        load_trained(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def test_weight_decay_spares_vectors_unless_asked():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def decays(**options):
        optimizer = make_optimizer(model, OptimizerRecipe(weight_decay=0.1, **options))
        return {
            p.ndim > 1: group["weight_decay"]
            for group in optimizer.param_groups
            for p in group["params"]
        }

    assert decays() == {True: 0.1, False: 0.0}
    assert decays(decay_1d=True) == {True: 0.1, False: 0.1}


def test_parameters_are_chosen_by_name():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    options = {
        "lr": 0.5,
        "weight_decay": 0.1,
        "decay_1d": True,
        "decay_exclude": ["0.bias", "1.*"],
        "lr_scale": {"0.*": 3, "0.bias": 7, "1.bias": 2},
    }
    optimizer = make_optimizer(model, OptimizerRecipe(**options))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(p)]: (group["weight_decay"], group["lr_scale"], group["lr"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found == {
        "0.weight": (0.1, 3.0, 1.5),
        "0.bias": (0.0, 3.0, 1.5),
        "1.weight": (0.0, 1.0, 0.5),
        "1.bias": (0.0, 2.0, 1.0),
    }


@pytest.mark.parametrize("field", ["decay_exclude", "decays", "lr_scale", "agc"])
def test_names_that_fit_no_parameter_are_told(tmp_path, field):
    value = {
        "decay_exclude": ["0.*", "had.*"],
        "decays": {"had.*": 0.1},
        "lr_scale": {"had.*": 2.0},
        "agc": {"clip_factor": 0.1, "exclude": ["had.*"]},
    }[field]
    tree = recipe().model_dump()
    tree["stages"][1]["optimizer"][field] = value
    message = rf"stages\.1\.optimizer\.{field}.*: 'had\.\*' fits no parameter; did you mean"
    with pytest.raises(RecipeError, match=message):
        train(parse_recipe(tree), SOURCE, tmp_path / "out", model=tiny_network(), console=quiet())
    assert not (tmp_path / "out" / "recipe.resolved.yaml").exists()


def test_decays_by_name_come_before_those_by_dimension():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    given = {"weight_decay": 0.5, "decay_exclude": ["1.*"], "decays": {"1.b*": 0.1, "*.bias": 0.2}}
    optimizer = make_optimizer(model, OptimizerRecipe(**given))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    found = {name: decays[id(p)] for name, p in model.named_parameters()}
    assert found == {"0.weight": 0.5, "0.bias": 0.2, "1.weight": 0.0, "1.bias": 0.1}


def test_the_norm_of_all_gradients_is_clipped(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def watched(self, *arguments, **named):
        result = step(self, *arguments, **named)
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat(grads).norm()))
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    tree = recipe().model_dump()
    tree["stages"][1]["optimizer"]["clip_norm"] = 0.01
    train(parse_recipe(tree), SOURCE, tmp_path, model=tiny_network(), console=quiet())
    first = len(norms) // 3
    assert max(norms[:first]) > 0.1
    assert norms[first:] == pytest.approx([0.01] * (len(norms) - first), rel=1e-3)


def test_factors_of_the_learning_rate_reach_the_steps(tmp_path):
    """With a factor so small, parameters stand still; the rate that is told is the common one."""
    tree = recipe().model_dump()
    for stage in tree["stages"]:
        stage["optimizer"]["lr_scale"] = {"8.*": 1e-30}
    model = tiny_network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = train(parse_recipe(tree), SOURCE, tmp_path, model=model, console=quiet())
    for name, parameter in result.trained.model.named_parameters():
        still = torch.allclose(parameter, before[name], rtol=0, atol=1e-20)
        assert still == name.startswith("8."), name
    assert result.history[1]["lr"] == pytest.approx(0.01 * 0.75, rel=0.5)


def test_a_network_without_8_bit_layers(tmp_path):
    """A&B BNN's own: stem and classifier are real, there is nothing to calibrate."""
    tree = {
        **RECIPE,
        "model": {
            "name": "ab_reactnet18",
            "width": 0.0625,
            "options": {"scale": "power_of_two"},
        },
    }
    tree["stages"] = [
        {"name": "first", "epochs": 1, "binary_weights": False},
        {"name": "second", "epochs": 1, "optimizer": {"agc": {"clip_factor": 0.01}}},
    ]
    result = train(parse_recipe(tree), SOURCE, tmp_path, console=quiet())
    loaded = load_trained(tmp_path)
    assert weights_sha256(loaded.model) == result.metrics["weights_sha256"]
    assert loaded.spec["scale"] == "power_of_two"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_optimizers(name, kind):
    assert type(make_optimizer(nn.Linear(2, 2), OptimizerRecipe(name=name))) is kind


def test_training_does_not_need_the_engine():
    code = (
        "import sys\n"
        "sys.modules['signbit.runtime'] = sys.modules['signbit.compiler'] = None\n"
        "import signbit.training, signbit.data, signbit.tasks.classification, signbit.calibration"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_resolved_recipe_is_plain_yaml(run):
    tree = yaml.safe_load((run.output / "recipe.resolved.yaml").read_text())
    assert tree["stages"][1]["optimizer"]["lr"] == 0.01
    assert tree["seed"] == 5


def test_every_epoch_has_its_own_order(tmp_path, monkeypatch):
    from signbit.data.loader import BatchLoader

    epochs = []
    batches = BatchLoader.__iter__

    def recorded(self):
        if self.shuffle:
            epochs.append(self.epoch)
        yield from batches(self)

    monkeypatch.setattr(BatchLoader, "__iter__", recorded)
    train(recipe(), SOURCE, tmp_path / "out", model=tiny_network(), console=quiet())
    assert epochs == [0, 1, 2, 0]  # the last for calibration
