"""The registry of models."""

import inspect

import pytest
from torch import nn

from signbit.models import create_model, list_models, model_info, register_model
from signbit.models import registry as registry_module
from signbit.models.registry import model_arguments


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry_module, "_FACTORIES", {})
    monkeypatch.setattr(registry_module, "_INFO", {})


def test_names():
    assert {"bineal18", "reactnet18", "resnet18"} <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("re*18") == ["reactnet18", "resnet18"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", list_models())
def test_every_model_documents_itself(name):
    info = model_info(name)
    assert info.name == name
    assert "arXiv" in info.source
    assert info.status
    assert all(len(size) == 3 and size[0] == 3 for size in info.input_sizes.values())
    factory = registry_module._FACTORIES[name]
    classes = inspect.signature(factory).parameters.get("num_classes")
    if classes is not None and classes.default == 1000:
        assert info.input_sizes["imagenet"] == (3, 224, 224)
    paper = info.source.split()[-1]
    assert paper in factory.__doc__ or paper in inspect.getmodule(factory).__doc__


def test_the_reconstruction_is_called_one():
    assert "[RECON]" in model_info("bineal18").status
    assert "[RECON]" not in model_info("reactnet18").status


def test_unknown_names_give_the_nearest():
    for lookup in (create_model, model_info):
        with pytest.raises(ValueError, match=r"unknown model 'bineal-18' .*'bineal18'"):
            lookup("bineal-18")


def test_arguments_are_known():
    wanted = ["num_classes", "stem", "width", "in_channels", "stem_kernel"]
    assert model_arguments("resnet18") == wanted
    assert "surrogate" in model_arguments("bineal18")
    with pytest.raises(ValueError, match="'bineal18'"):
        model_arguments("bineal-18")


def test_registering(empty_registry):
    @register_model(input_sizes={}, source="here", status="a test's")
    def identity(**arguments) -> nn.Module:
        return nn.Identity(**arguments)

    assert list_models() == ["identity"]
    assert model_arguments("identity") is None
    assert isinstance(create_model("identity", anything=1), nn.Identity)
    with pytest.raises(ValueError, match="registered already"):
        register_model(input_sizes={}, source="", status="")(identity)
