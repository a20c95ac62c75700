"""What tasks share: examples in batches, predictions of any engine, intervals."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from signbit.data.loader import ExampleLoader
from signbit.data.normalize import normalize
from signbit.tasks import TASKS, get_task
from signbit.tasks.base import Task, as_arrays, as_tuple, bootstrap, engine_predict, torch_predict

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


class Pairs:
    """Two images an example; random ones are the same image moved by what is drawn."""

    def __init__(self, count: int = 11) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index, generator):
        shift = 0 if generator is None else int(generator.integers(0, 100))
        image = self.images[index]
        pixels = np.stack([image, image + np.uint8(shift)])
        return pixels, {"index": np.int64(index), "shift": np.array([shift])}


class Brightness(Task):
    """Scores how bright what a network says is."""

    name = "brightness"
    metric = "mean"
    units: ClassVar = {"mean": "{:.2f}", "greatest": "{:.2f}"}

    def load(self, data, path):
        raise NotImplementedError

    def examples(self, source, split, data, training):
        return source

    def loss(self, outputs, targets):
        raise NotImplementedError

    def records(self, outputs, targets):
        assert len(outputs[0]) == 2 * len(targets["index"])
        return [float(outputs[0].mean()) + index for index in targets["index"]]

    def summarize(self, records):
        return {"mean": float(np.mean(records)), "greatest": float(np.max(records))}


def loader(**arguments):
    return ExampleLoader(Pairs(), MEAN, STD, batch_size=4, augment=True, **arguments)


def test_batches_hold_all_first_images_before_the_second_ones():
    batches = list(loader(seed=3))
    assert [len(images) for images, _ in batches] == [8, 8, 6]
    images, targets = batches[0]
    assert targets["index"].tolist() == [0, 1, 2, 3]
    shifts = targets["shift"][:, 0].tolist()
    assert len(set(shifts)) > 1
    pixels = Pairs().images[:4]
    moved = np.stack([p + np.uint8(s) for p, s in zip(pixels, shifts, strict=True)])
    wanted = normalize(np.concatenate([pixels, moved]), MEAN, STD)
    assert torch.equal(images, torch.from_numpy(wanted))


def test_an_example_depends_on_seed_epoch_and_index_alone():
    def shifts(epoch, **arguments):
        batches = loader(shuffle=True, **arguments)
        batches.set_epoch(epoch)
        return {
            int(i): int(s)
            for _, targets in batches
            for i, s in zip(targets["index"], targets["shift"][:, 0], strict=True)
        }

    first = shifts(0, seed=1)
    assert len(first) == 8  # the incomplete batch is left out
    assert shifts(0, seed=1) == first
    again, other = shifts(1, seed=1), shifts(0, seed=2)
    assert any(again[i] != first[i] for i in set(again) & set(first))
    assert any(other[i] != first[i] for i in set(other) & set(first))
    parts = [shifts(0, seed=1, rank=rank, ranks=2) for rank in (0, 1)]
    assert parts[0] | parts[1] == first


@pytest.mark.parametrize(("count", "ranks"), [(5, 2), (11, 3), (2, 2), (7, 1)])
def test_processes_share_examples_one_by_one(count, ranks):
    shares = [
        [int(i) for _, t in part for i in t["index"]]
        for part in (
            ExampleLoader(Pairs(count), MEAN, STD, batch_size=1, rank=rank, ranks=ranks)
            for rank in range(ranks)
        )
    ]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_evaluation_takes_examples_as_they_are():
    seen = []

    def predict(pixels):
        seen.append(pixels)
        return (pixels.astype(np.float32),)

    task, pairs = Brightness(), Pairs()
    records = list(task.evaluate(predict, pairs, "test", {}))
    wanted = [float(image.mean(dtype=np.float32)) + i for i, image in enumerate(pairs.images)]
    assert records == pytest.approx(wanted, rel=1e-5)
    assert all((pixels[0] == pixels[1]).all() for pixels in seen)


def test_intervals_by_bootstrap():
    task = Brightness()
    generator = np.random.default_rng(5)
    records = generator.normal(3.0, 1.0, 400).tolist()
    found = bootstrap(task, records, rounds=2000)
    low, high = found["mean"]
    error = np.std(records) / np.sqrt(400)
    assert low == pytest.approx(np.mean(records) - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(np.mean(records) + 1.96 * error, abs=0.15 * error)
    assert found["greatest"][1] == max(records)
    assert bootstrap(task, records, rounds=2000) == found
    narrow = bootstrap(task, records, rounds=2000, level=0.5)["mean"]
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap(task, [2.0], rounds=3) == {"mean": (2.0, 2.0), "greatest": (2.0, 2.0)}


def test_predictions_of_pytorch_restore_the_mode():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.5)).train()
    pixels = Pairs().images[:2]
    (found,) = torch_predict(network, MEAN, STD)(pixels)
    assert network.training
    with torch.no_grad():
        wanted = network.eval()(torch.from_numpy(normalize(pixels, MEAN, STD)))
    np.testing.assert_array_equal(found, wanted.numpy())


def test_predictions_of_the_engine_are_real_numbers():
    class Session:
        output_scales: ClassVar = [1.0, 0.25]

        def __call__(self, pixels):
            assert pixels.flags.c_contiguous
            return pixels[..., 0].astype(np.float32), pixels[..., 1].astype(np.int32)

    pixels = Pairs().images[:, ::-1]
    first, second = engine_predict(Session())(pixels)
    np.testing.assert_array_equal(first, pixels[..., 0])
    np.testing.assert_array_equal(second, pixels[..., 1] / 4)
    assert second.dtype == np.float32


def test_outputs_and_targets_in_one_form():
    x = torch.ones(2)
    assert as_tuple(x) == (x,)
    assert as_tuple([x, x]) == (x, x)
    assert as_arrays(x).tolist() == [1, 1]
    assert as_arrays({"a": x})["a"].tolist() == [1, 1]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_scores(name):
    task = get_task(name)
    assert task.name == name
    assert task.metric in task.units
    assert task.sources[0] == "auto"
    assert all(unit.format(0.5) for unit in task.units.values())
