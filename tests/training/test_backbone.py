"""Networks for dense tasks that start from a trained classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from signbit.calibration import calibrate
from signbit.errors import RecipeError
from signbit.models import create_model
from signbit.models.backbone import Backbone
from signbit.training import TrainedModel
from signbit.training.backbone import start_backbone


class Dense(nn.Module):
    def __init__(self, name: str = "bineal18", **options):
        super().__init__()
        self.backbone = Backbone(name, width=0.125, **options)
        self.head = nn.Conv2d(self.backbone.channels[-1], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[-1])


def saved(folder, name="bineal18", **options):
    torch.manual_seed(5)
    spec = {"name": name, "num_classes": 7, "width": 0.125, "stem": "imagenet", **options}
    model = create_model(**spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    path = folder / f"{name}.pt"
    TrainedModel(model, spec, ("a",) * 7, (0.5,) * 3, (0.2,) * 3, (3, 64, 64)).save(path)
    return path, model


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bineal18", {}),
        ("bineal18", {"stem_kernel": 3, "over_parameterize": "kernel"}),
        ("resnet18", {"stem_kernel": 5}),
        ("reactnet18", {}),
    ],
)
def test_maps_are_those_of_the_classifier(name, options, tmp_path):
    path, classifier = saved(tmp_path, name, **options)
    network = Dense(name, **options)
    head = network.head.weight.detach().clone()
    said = start_backbone(network, path)
    assert said.startswith("backbone: ")
    assert str(path) in said
    assert torch.equal(network.head.weight, head)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = network.backbone.eval()(x)
        wanted = classifier.eval().stages(classifier.stem(x))
    assert torch.equal(maps[-1], wanted)
    assert [y.shape[1] for y in maps] == list(network.backbone.channels)
    sizes = [(64 // s, 96 // s) for s in network.backbone.strides]
    assert [tuple(y.shape[2:]) for y in maps] == sizes
    assert network.backbone.bits == (name == "bineal18")
    if network.backbone.bits:
        assert all((y.abs() == 1).all() for y in maps)


def test_what_does_not_fit_is_named(tmp_path):
    path, _ = saved(tmp_path)
    with pytest.raises(
        RecipeError, match=r"stem.0.weight of .* is \(8, 3, 7, 7\), .* \(8, 1, 7, 7\)"
    ):
        start_backbone(Dense(in_channels=1), path)
    with pytest.raises(RecipeError, match="bineal18 without the backbone's stem"):
        start_backbone(Dense("resnet18"), path)
    with pytest.raises(RecipeError, match="has no backbone"):
        start_backbone(nn.Conv2d(3, 3, 1), path)
    more, _ = saved(tmp_path, over_parameterize="element")
    with pytest.raises(RecipeError, match=r"quantizer\.factor, which the network's backbone"):
        start_backbone(Dense(), more)
    with pytest.raises(ValueError, match="unknown model 'bineal-18'"):
        Backbone("bineal-18")


def test_ranges_of_the_classifier_are_not_final(tmp_path):
    torch.manual_seed(0)
    classifier = calibrate(
        create_model("bineal18", num_classes=7, width=0.125), [torch.randn(4, 3, 64, 64)]
    )
    spec = {"name": "bineal18", "num_classes": 7, "width": 0.125}
    path = tmp_path / "model.pt"
    TrainedModel(classifier, spec, ("a",) * 7, (0.5,) * 3, (0.2,) * 3, (3, 64, 64)).save(path)
    network = Dense()
    start_backbone(network, path)
    first = network.backbone.stem[0]
    before = first.input_scale.clone()
    network.train()(100 * torch.randn(4, 3, 64, 64))
    assert first.input_scale > before
