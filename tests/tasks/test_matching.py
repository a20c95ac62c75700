"""Matching as a task: views, losses by hand, scores, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from signbit.data.pairs import MatchingSource, Photographs, read_pairs, warped_pairs
from signbit.data.warps import Views
from signbit.errors import DataError
from signbit.runtime.matching import KeyPoints
from signbit.tasks import get_task
from signbit.tasks.base import bootstrap
from signbit.tasks.matching import (
    MatchRecord,
    agreement_loss,
    descriptor_losses,
    peak_loss,
    score,
)
from signbit.training.recipe import DataRecipe
from tests.data.test_pairs import smooth, write_scene

TASK = get_task("matching")
SHIFT = torch.tensor([[[1.0, 0, 8], [0, 1, 4], [0, 0, 1]]])  # 8 pixels to the right, 4 down


def data(**fields: Any) -> dict[str, Any]:
    return DataRecipe(**{"name": "auto", **fields}).model_dump()


def source(count: int = 3) -> MatchingSource:
    photographs = Photographs(
        tuple(f"p{i}" for i in range(count)), tuple(smooth(seed=i) for i in range(count))
    )
    pairs = warped_pairs(photographs, (96, 128), Views(), each=1, seed=0)
    return MatchingSource(
        "image_pairs", photographs, pairs, pairs, (), (0.5,) * 3, (0.25,) * 3, 128
    )


def shifted_maps(channels: int, scale: int = 1, seed: int = 0) -> torch.Tensor:
    """Maps of a 64x96 image and of the same thing moved by SHIFT: [2, C, 64, 96] / scale."""
    torch.manual_seed(seed)
    wide = torch.randn(1, channels, 64 // scale + 8 // scale, 96 // scale + 8 // scale)
    down, right = 4 // scale, 8 // scale
    h, w = 64 // scale, 96 // scale
    return torch.cat([wide[:, :, down : down + h, right : right + w], wide[:, :, :h, :w]])


# --- examples ---


def test_training_views_are_those_of_the_generator() -> None:
    fields = data(crop_size=[64, 80], epoch_images=7, options={"noise": 0.1})
    examples = TASK.examples(source(), "train", fields, True)
    assert len(examples) == 7
    views, targets = examples.example(5, np.random.default_rng(3))
    again, _ = examples.example(2, np.random.default_rng(3))  # the same photograph
    assert views.shape == (2, 64, 80, 3)
    assert views.dtype == np.uint8
    np.testing.assert_array_equal(views, again)
    assert targets["homography"].shape == (3, 3)
    assert not targets["binary"]


def test_batches_hold_first_images_then_second_ones() -> None:
    fields = data(batch_size=2, crop_size=64, epoch_images=4, options={"descriptors": "binary"})
    loader = TASK.loader(source(), "train", fields, training=True, seed=1)
    images, targets = next(iter(loader))
    assert images.shape == (4, 3, 64, 64)
    assert targets["homography"].shape == (2, 3, 3)
    assert targets["binary"].tolist() == [True, True]
    index = loader.indices(0, 0)[1]
    views, _ = loader.examples.example(int(index), np.random.default_rng([1, 2, 0, int(index)]))
    wanted = (views[1].astype(np.float32) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(images[3].permute(1, 2, 0), wanted, atol=1e-6)


# --- losses ---


def test_the_right_partners_cost_nothing_and_others_their_logarithm() -> None:
    maps = shifted_maps(32, 4)
    reliability = torch.zeros(2, 1, 16, 24)
    right, trust = descriptor_losses(maps, reliability, SHIFT, stride=4, binary=False)
    assert right < 0.01
    assert trust == pytest.approx(math.log(2))  # undecided
    surely, _ = descriptor_losses(maps, reliability, SHIFT, stride=4, binary=True)
    assert surely < 0.1
    wrong, _ = descriptor_losses(
        maps.roll(5, 3), reliability, torch.eye(3)[None], stride=4, binary=False
    )
    assert wrong > 3
    same, _ = descriptor_losses(torch.ones_like(maps), reliability, SHIFT, stride=4, binary=False)
    seen = (64 // 8) * (96 // 8)
    assert math.log(0.5 * seen) < same < math.log(seen)  # all partners alike: their number counts


def test_reliability_learns_where_picks_are_right() -> None:
    maps = shifted_maps(32, 4)
    sure, unsure = (torch.full((2, 1, 16, 24), v) for v in (6.0, -6.0))
    assert descriptor_losses(maps, sure, SHIFT, stride=4, binary=False)[1] < 0.01
    assert descriptor_losses(maps, unsure, SHIFT, stride=4, binary=False)[1] > 5
    same = torch.ones_like(maps)
    assert descriptor_losses(same, unsure, SHIFT, stride=4, binary=False)[1] < 0.2
    assert descriptor_losses(same, sure, SHIFT, stride=4, binary=False)[1] > 5


def test_views_without_a_common_part_cost_nothing() -> None:
    far = torch.tensor([[[1.0, 0, 1e4], [0, 1, 0], [0, 0, 1]]])
    maps = torch.randn(2, 8, 16, 24, requires_grad=True)
    reliability = torch.zeros(2, 1, 16, 24, requires_grad=True)
    losses = descriptor_losses(maps, reliability, far, stride=4, binary=False)
    assert [part.item() for part in losses] == [0, 0]
    sum(losses).backward()
    assert agreement_loss(torch.rand(2, 1, 64, 96), far) == 1


def test_maps_that_move_with_the_image_agree() -> None:
    peaks = shifted_maps(1).sigmoid()
    assert agreement_loss(peaks, SHIFT) < 1e-5
    assert agreement_loss(peaks, torch.eye(3)[None]) > 0.05
    # Where only half of the views is common, the other half does not count.
    wide = torch.tensor([[[1.0, 0, 40], [0, 1, 0], [0, 0, 1]]])
    torch.manual_seed(0)
    scene = torch.rand(1, 1, 64, 136)
    assert agreement_loss(torch.cat([scene[..., 40:], scene[..., :96]]), wide) < 1e-5


def test_one_peak_a_patch_is_wanted() -> None:
    flat = torch.full((1, 1, 64, 64), 0.5)
    assert peak_loss(flat) == pytest.approx(1)
    dots = torch.zeros(1, 1, 64, 64)
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            dots[:, :, 4 + dy : 62 : 8, 4 + dx : 62 : 8] = 1
    assert peak_loss(dots) == pytest.approx(9 / 64, abs=0.02)  # what is left is the mean


def test_the_loss_of_a_batch_moves_every_output() -> None:
    outputs = tuple(
        torch.randn(4, *shape, requires_grad=True)
        for shape in ((16, 16, 24), (1, 16, 24), (1, 64, 96))
    )
    for binary in (False, True):
        targets = {"homography": SHIFT.expand(2, 3, 3), "binary": torch.tensor([binary] * 2)}
        grads = torch.autograd.grad(TASK.loss(outputs, targets), outputs)
        assert all(grad.abs().sum() > 0 for grad in grads)


# --- scores ---


def found(points: np.ndarray, seed: int = 0) -> KeyPoints:
    descriptors = np.random.default_rng(seed).standard_normal((len(points), 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return KeyPoints(points.astype(np.float32), np.ones(len(points), np.float32), descriptors)


def test_scores_by_hand() -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(10, 90, (40, 2))
    homography = np.float64([[1, 0, 5], [0, 1, 0], [0, 0, 1]])
    exact = points + np.array([5, 0])
    perfect = score(found(points), found(exact), homography, (100, 100))
    assert (perfect.matches, perfect.right3, perfect.right5) == (40, 40, 40)
    assert perfect.corner_error < 1e-3
    moved = exact.copy()
    moved[:10, 0] += 4  # within 5 pixels
    moved[10:15, 1] += 6  # not
    partly = score(found(points), found(moved), homography, (100, 100))
    assert (partly.matches, partly.right3, partly.right5) == (40, 25, 35)
    moved = exact.copy()
    moved[:15] = generator.uniform(10, 90, (15, 2))
    assert score(found(points), found(moved), homography, (100, 100)).corner_error < 0.1  # RANSAC
    none = score(found(points), found(exact[:0]), homography, (100, 100))
    assert (none.matches, none.corner_error) == (0, math.inf)


def test_a_summary_is_the_mean_over_pairs() -> None:
    records = [
        MatchRecord(10, 5, 8, 2.0), MatchRecord(100, 100, 100, 4.0), MatchRecord(0, 0, 0, math.inf),
    ]  # fmt: skip
    scores = TASK.summarize(records)
    assert scores == pytest.approx(
        {"mma5": 0.6, "mma3": 0.5, "homography5": 2 / 3, "homography3": 1 / 3, "matches": 110 / 3}
    )
    assert list(scores) == list(TASK.units)
    low, high = bootstrap(TASK, records, rounds=50)["mma5"]
    assert 0 <= low < 0.6 < high <= 1


class Reader:
    """Predicts from the pixels: descriptors are averages of the surroundings, peaks are corners."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        self.shapes.append(pixels.shape)
        images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5
        blurred = torch.nn.functional.avg_pool2d(images, 9, 4, 4)
        grid = [
            torch.nn.functional.pad(blurred, (4, 4, 4, 4), mode="replicate")[
                :, :, 4 + dy : 4 + dy + blurred.shape[2], 4 + dx : 4 + dx + blurred.shape[3]
            ]
            for dy in (-4, 0, 4)
            for dx in (-4, 0, 4)
        ]
        edges = (images[:, :1] - torch.nn.functional.avg_pool2d(images[:, :1], 5, 1, 2)).abs()
        return torch.cat(grid, 1).numpy(), np.zeros_like(blurred[:, :1]), (8 * edges).numpy()


def test_evaluation_finds_what_was_moved_and_equals_records() -> None:
    whole = source()
    still = Views(scale=1.0, rotation=0.0, perspective=0.0, shift=0.1)
    pairs = warped_pairs(whole.train, (96, 128), still, each=1, seed=0)
    whole = MatchingSource("image_pairs", whole.train, pairs, pairs, (), whole.mean, whole.std, 128)
    for kind in ("real", "binary"):
        fields = data(options={"keypoints": 60, "descriptors": kind})
        records = list(TASK.evaluate(Reader(), whole, "test", fields))
        assert TASK.summarize(records)["mma5"] > 0.5
        assert max(record.matches for record in records) <= 60
        examples, again = TASK.examples(whole, "val", fields, False), []
        for index in range(len(examples)):
            views, targets = examples.example(index, None)
            batch = {name: value[None] for name, value in targets.items()}
            again += TASK.records(Reader()(views), batch)
        # Homographies of batches are float32, so that distances may differ in their last digits.
        assert [(r.matches, r.right5) for r in again] == [(r.matches, r.right5) for r in records]


def test_images_that_pairs_share_are_run_once_each_in_its_own_size(tmp_path) -> None:
    write_scene(tmp_path / "s", 3)
    write_scene(tmp_path / "t", 2, size=(120, 90))
    whole = source()
    pairs = read_pairs([tmp_path])
    whole = MatchingSource(
        "image_pairs", whole.train, whole.val, pairs, (), whole.mean, whole.std, 128
    )
    reader = Reader()
    assert len(list(TASK.evaluate(reader, whole, "test", data()))) == 3
    assert reader.shapes == [(1, 80, 100, 3)] * 3 + [(1, 120, 90, 3)] * 2
    with pytest.raises(DataError, match="train holds single photographs"):
        next(TASK.evaluate(reader, whole, "train", data()))


# --- fields ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options": {"rotatoin": 3}}, r"data\.options\.rotatoin: .*did you mean 'rotation'"),
        ({"options": {"x": 3}}, r"data\.options\.x: matching has no such option; known: desc"),
        ({"options": {"noise": 7}}, r"data\.options\.noise: expected a number from 0\.0 to 0\.5"),
        ({"options": {"keypoints": 2.5}}, r"keypoints: expected a whole number from 8"),
        ({"options": {"grey": True}}, r"grey: expected a number .* got True"),
        ({"options": {"descriptors": "bits"}}, r"descriptors: expected real or binary, got 'bits'"),
        ({"crop_size": 48}, r"data\.crop_size: training views need 64 pixels a side, got \[48, 48"),
    ],
)  # fmt: skip
def test_fields_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TASK.examples(source(), "train", data(**fields), True)


def test_sources_and_paths_belong_together(tmp_path) -> None:
    with pytest.raises(DataError, match="image_pairs are not embedded"):
        TASK.load(data(name="image_pairs"), None)
    with pytest.raises(DataError, match="skimage is embedded and takes no path"):
        TASK.load(data(name="skimage"), tmp_path)


def test_files_say_how_to_decode() -> None:
    facts = TASK.facts(source(), data(options={"descriptors": "binary", "longer_side": 320}))
    assert facts == {
        "radius": 2, "border": 8, "descriptors": "binary", "longer_side": 320,
    }  # fmt: skip
