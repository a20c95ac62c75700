"""Segmentation: crops that keep image and mask together, the loss, scores, options."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from signbit.data.digit_scenes import digit_scenes
from signbit.data.masks import VOID, MaskedImages, cut_splits
from signbit.errors import DataError, RecipeError
from signbit.tasks import get_task
from signbit.tasks.base import bootstrap
from signbit.tasks.segmentation import confusion, scores_of

TASK = get_task("segmentation")


def fields(**changes):
    augment = {
        "crop_padding": 0, "pad_mode": "reflect", "flip": False, "rotate": False, "zoom": None,
        "brightness": 0.0, "contrast": 0.0,
    } | changes.pop("augment", {})  # fmt: skip
    return {
        "name": "auto", "batch_size": 4, "val_size": None, "image_size": None, "crop_size": None,
        "epoch_images": None, "scale": None, "options": {}, "augment": augment,
    } | changes  # fmt: skip


def source_of(count=12, size=(48, 64), mask_size=(96, 128), classes=4):
    """Images whose grey value says the class of the mask, 50 a class."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, classes, (count, 6, 8), np.uint8)

    def scaled(to):
        return coarse.repeat(to[0] // 6, 1).repeat(to[1] // 8, 2)

    images = (scaled(size) * 50)[..., None].repeat(3, 3)
    part = MaskedImages(images, tuple(scaled(mask_size)))
    return cut_splits("made", None, {"train": part}, [f"c{i}" for i in range(classes)], None)


# --- examples ---


@pytest.mark.parametrize(
    "augment",
    [{}, {"flip": True}, {"zoom": (0.8, 2.0)}, {"zoom": (1.5, 1.5), "flip": True}],
)
def test_crops_keep_image_and_mask_together(augment):
    source = source_of()
    data = fields(crop_size=(32, 40), augment=augment)
    examples = TASK.examples(source, "train", data, True)
    seen = set()
    for index in range(len(examples)):
        pixels, targets = examples.example(index, np.random.default_rng(index))
        mask = targets["mask"]
        assert pixels.shape == (1, 32, 40, 3)
        assert mask.shape == (16, 20)
        found = pixels[0, ..., 0].reshape(16, 2, 20, 2).astype(float).mean((1, 3)) / 50
        # edges are blurred, and may be half a mask's pixel away
        assert (np.abs(found - mask) < 0.2).mean() > 0.6
        seen.add(pixels.tobytes())
    assert len(seen) == len(examples)


def test_crops_are_a_function_of_the_generator():
    data = fields(crop_size=32, augment={"flip": True, "zoom": (0.7, 1.4), "brightness": 0.2,
                                         "contrast": 0.3})  # fmt: skip
    examples = TASK.examples(source_of(), "train", data, True)
    first, again, other = (examples.example(3, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first[0] == again[0]).all()
    assert (first[1]["mask"] == again[1]["mask"]).all()
    assert (first[0] != other[0]).any()


def test_without_zoom_pixels_are_those_of_the_image():
    source = source_of()
    examples = TASK.examples(source, "train", fields(crop_size=(32, 40)), True)
    pixels, _ = examples.example(0, np.random.default_rng(0))
    windows = np.lib.stride_tricks.sliding_window_view(source.train.images[0], (32, 40, 3))
    assert (windows == pixels[0]).all((3, 4, 5)).any()


def test_brightness_and_contrast_change_levels_alone():
    source = source_of()
    data = fields(augment={"brightness": 0.1, "contrast": 0.5})
    pixels, targets = TASK.examples(source, "train", data, True).example(
        0, np.random.default_rng(4)
    )
    image = source.train.images[0].astype(float)
    assert (targets["mask"] == source.train.masks[0][2::4, 2::4][:24, :32]).mean() > 0.9
    levels = {(a, b) for a, b in zip(image.ravel(), pixels.ravel(), strict=True)}
    assert len(levels) == len({a for a, _ in levels})  # a function of the level
    assert abs(pixels.mean() - image.mean()) < 0.1 * 255 + 10
    assert (pixels[0] != source.train.images[0]).any()


def test_evaluation_sees_images_as_they_are_and_whole_masks():
    source = source_of()
    examples = TASK.examples(source, "test", fields(crop_size=32, epoch_images=50), False)
    assert len(examples) == len(source.test)
    pixels, targets = examples.example(1, None)
    assert (pixels[0] == source.test.images[1]).all()
    assert (targets["mask"] == source.test.masks[1]).all()


def test_an_epoch_may_show_images_several_times():
    source = source_of()
    examples = TASK.examples(source, "train", fields(epoch_images=25), True)
    assert len(examples) == 25
    pixels, _ = examples.example(24, np.random.default_rng(0))
    assert (pixels[0] == source.train.images[24 % len(source.train)]).all()


def test_batches():
    source = source_of()
    data = fields(crop_size=32, options={"balance": 0.5})
    loader = TASK.loader(source, "train", data, training=True)
    images, targets = next(iter(loader))
    assert images.shape == (4, 3, 32, 32)
    assert targets["mask"].shape == (4, 16, 16)
    assert targets["weights"].shape == (4, 4)


# --- loss ---


def test_the_loss_is_cross_entropy_without_void():
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mask = torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    mask[0, :2] = VOID
    truth = mask.tolist()
    log = scores.log_softmax(1)
    terms = [
        -log[n, truth[n][y][x], y, x]
        for n in range(2) for y in range(4) for x in range(5) if truth[n][y][x] != VOID
    ]  # fmt: skip
    assert TASK.loss((scores,), {"mask": mask}).item() == pytest.approx(
        (sum(terms) / len(terms)).item()
    )


def test_weights_are_of_classes_and_their_mean_over_pixels_is_one():
    source = source_of()
    _, targets = TASK.examples(source, "train", fields(options={"balance": 1.0}), False).example(
        0, None
    )
    weights = targets["weights"]
    counts = np.bincount(np.concatenate([m.ravel() for m in source.train.masks]), minlength=4)
    assert weights * counts == pytest.approx(np.full(4, counts.sum() / 4), rel=1e-5)
    scores = torch.randn(1, 4, 8, 8)
    mask = torch.randint(0, 4, (1, 8, 8), dtype=torch.uint8)
    mask[0, 0] = VOID
    found = TASK.loss((scores,), {"mask": mask, "weights": torch.from_numpy(weights)[None]})
    expected = nn.functional.cross_entropy(
        scores, mask.long(), torch.from_numpy(weights), ignore_index=VOID
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_scores_are_enlarged_to_the_mask():
    scores = torch.randn(1, 3, 6, 8)
    mask = torch.randint(0, 3, (1, 24, 32), dtype=torch.uint8)
    wide = nn.functional.interpolate(scores, size=(24, 32), mode="bilinear")
    assert TASK.loss((scores,), {"mask": mask}).item() == pytest.approx(
        nn.functional.cross_entropy(wide, mask.long()).item(), rel=1e-5
    )


@pytest.mark.parametrize("weights", [{}, {"weights": torch.ones(1, 3)}])
def test_a_batch_of_void_has_no_loss(weights):
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = TASK.loss((scores,), {"mask": torch.full((1, 4, 4), VOID, dtype=torch.uint8), **weights})
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


# --- scores ---


def test_scores_by_hand():
    truth = np.array([[0, 0, 1, 1], [2, 2, VOID, 0]], np.uint8)
    found = np.array([[0, 1, 1, 1], [2, 0, 2, 0]], np.uint8)
    matrix = confusion(truth, found, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # intersections 2, 2, 1; unions 4, 3, 2; class 3 does not occur
    scores = scores_of(matrix)
    assert scores["miou"] == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(5 / 7)


def test_nothing_but_void_has_no_score():
    assert np.isnan(scores_of(np.zeros((3, 3), np.int64))["miou"])


def test_records_sum_to_the_matrix_of_all_pixels():
    source = source_of()
    outputs = []

    def predict(pixels):
        grey = pixels[..., 0].astype(np.float32)[:, None] / 50
        outputs.append(-np.abs(grey - np.arange(4, dtype=np.float32)[None, :, None, None]))
        return (outputs[-1],)

    records = list(TASK.evaluate(predict, source, "train", fields()))
    assert len(records) == len(source.train)
    scores = TASK.summarize(records)
    assert set(scores) == set(TASK.units)
    assert scores["miou"] > 0.85  # scores have half of the mask's pixels a side
    assert np.sum(records) == sum(mask.size for mask in source.train.masks)
    low, high = bootstrap(TASK, records, rounds=50)["miou"]
    assert low <= scores["miou"] <= high


# --- data ---


@pytest.fixture
def few_scenes(monkeypatch):
    few = partial(digit_scenes, train=60, val=2, test=2)
    monkeypatch.setattr("signbit.tasks.segmentation.digit_scenes", few)


def test_embedded_scenes_need_no_path(few_scenes):
    source = TASK.load(fields(), None)
    assert source.name == "digit_scenes"
    assert source.class_names[:2] == ("background", "0")
    assert source.input_shape == (3, 96, 128)
    assert TASK.model_arguments(source, fields()) == {"num_classes": 11, "in_channels": 3}
    assert max(mask.max() for mask in source.train.masks) == 10
    assert TASK.load(fields(image_size=64), None).input_shape == (3, 64, 64)


def write(root, size=(40, 48)):
    for split in ("train", "val"):
        for i in range(4):
            for kind in ("images", "labels"):
                folder = root / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                array = np.full(size, i % 3, np.uint8)
                Image.fromarray(array).save(folder / f"{i}.png")
    return root


def test_files_are_read_and_scaled(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "data")
    source = TASK.load(fields(image_size=[32, 64]), tmp_path / "data")
    assert (source.name, source.input_shape) == ("masks", (1, 32, 64))
    assert TASK.facts(source, fields(image_size=[32, 64])) == {
        "image_size": [32, 64],
        "stride": 32,
    }
    assert TASK.facts(source, fields())["image_size"] is None
    with pytest.raises(DataError, match="say where it lies"):
        TASK.load(fields(name="masks"), None)
    with pytest.raises(DataError, match="digit_scenes is embedded and takes no path"):
        TASK.load(fields(name="digit_scenes"), tmp_path / "data")


def test_images_too_small_for_the_stride_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "data", size=(31, 48))
    with pytest.raises(DataError, match=r"0\.png: 48x31 pixels, .* stands for 32x32"):
        TASK.load(fields(), tmp_path / "data")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"voidd": 3}}, r"data.options.voidd: unknown; did you mean 'void'\?"),
        ({"options": {"void": "sky"}}, "data.options.void: a class index .* got 'sky'"),
        ({"options": {"void": True}}, "data.options.void"),
        ({"options": {"balance": 2}}, "data.options.balance: a number from 0 to 1, got 2"),
        ({"image_size": 16}, "data.image_size: 16x16 pixels are too few"),
        ({"crop_size": [97, 64]}, "data.crop_size: 97x64 pixels of images of 96x128"),
        ({"crop_size": 24}, "data.crop_size: 24x24"),
        ({"augment": {"zoom": (0.5, 1)}}, "data.augment.zoom: from 0.5 on, crops of 96x128 would"),
        ({"epoch_images": 10}, "data.epoch_images: 10, fewer than the 60"),
    ],
)
def test_wrong_fields_are_named(few_scenes, changes, message):
    with pytest.raises(RecipeError, match=message):
        TASK.load(fields(**changes), None)
