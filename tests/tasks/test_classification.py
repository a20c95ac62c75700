"""Evaluation: the same images, in order, in PyTorch and in the engine."""

import numpy as np
import pytest
import torch
from torch import nn

from signbit.data import normalize
from signbit.data.base import ImageDataset
from signbit.tasks import get_task
from signbit.tasks.base import bootstrap
from signbit.tasks.classification import evaluate, evaluate_engine, loss

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def dataset(count=23):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return ImageDataset(images, generator.integers(0, 5, count))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Dropout(0.5)).train()


def test_evaluation_is_the_formula_over_all_images():
    model, data = network(), dataset()
    result = evaluate(model, data, MEAN, STD, batch_size=10)
    assert model.training
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(normalize(data.images, MEAN, STD)))
    labels = torch.from_numpy(data.labels)
    assert result.logits == pytest.approx(logits.numpy(), abs=1e-6)
    assert result.predictions.tolist() == logits.argmax(1).tolist()
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert result.loss == pytest.approx(loss(logits, labels).item(), abs=1e-6)


def test_engine_gets_the_pixels_in_order():
    model, data = network().eval(), dataset()
    batches = []

    def session(pixels):
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        batches.append(len(pixels))
        with torch.inference_mode():
            return model(torch.from_numpy(normalize(pixels, MEAN, STD))).numpy()

    result = evaluate_engine(session, data, batch_size=10)
    assert batches == [10, 10, 3]
    expected = evaluate(model, data, MEAN, STD)
    assert result.predictions.tolist() == expected.predictions.tolist()
    assert result.accuracy == expected.accuracy


def test_large_logits_do_not_overflow():
    data = dataset(4)
    result = evaluate_engine(lambda x: np.full((4, 5), 1e30, np.float32), data)
    assert result.loss == pytest.approx(np.log(5))


def test_label_smoothing_reaches_the_loss():
    logits, labels = torch.tensor([[9.0, 0.0]]), torch.tensor([0])
    plain, smooth = loss(logits, labels).item(), loss(logits, labels, 0.1).item()
    assert smooth == pytest.approx(plain + 0.05 * 9, abs=1e-4)


def test_accuracy_is_over_images_not_classes():
    task = get_task("classification")
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]
    records = task.records((logits,), np.array([0, 0, 0, 2]))
    found = task.summarize(records)
    assert found["accuracy"] == pytest.approx(0.75)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor([0, 0, 0, 2]))
    assert found["loss"] == pytest.approx(wanted.item())


def test_the_interval_is_that_of_drawn_images():
    result = evaluate(network(), dataset(400), MEAN, STD)
    right = result.predictions == dataset(400).labels
    records = [(bool(one), 0.0) for one in right]
    low, high = bootstrap(get_task("classification"), records)["accuracy"]
    assert result.interval() == pytest.approx((low, high), abs=0.01)
    assert low < result.accuracy < high
