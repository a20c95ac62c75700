"""Super-resolution as a task: crops, loss, and scores as the field reports them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from signbit.data.superresolution import MEAN, STD, ScaledImages, load_scaled, shrink
from signbit.errors import DataError, RecipeError
from signbit.tasks import get_task
from signbit.tasks.base import bootstrap
from signbit.tasks.superresolution import Crops, luma, psnr_y, ssim_y
from signbit.training.recipe import DataRecipe
from tests.data.test_superresolution import BENCHMARK, needs_benchmark, photograph, save

TASK = get_task("superresolution")


def data(**fields: Any) -> dict[str, Any]:
    return DataRecipe(**{"name": "auto", "scale": 2, **fields}).model_dump()


def pairs(count: int = 3, scale: int = 2) -> ScaledImages:
    made = [shrink(photograph(60, 72, seed=i), scale) for i in range(count)]
    low, high = zip(*made, strict=True)
    return ScaledImages(low, high, tuple(f"{i}.png" for i in range(count)))


def normalised(image: np.ndarray) -> np.ndarray:
    return ((image / np.float32(255) - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]


# --- crops ---


def test_crops_are_of_one_place_turned_alike() -> None:
    whole = pairs()
    crops = Crops(whole, (8, 8), count=40, flip=True, rotate=True)
    assert len(crops) == 40
    seen = set()
    for index in range(40):
        pixels, targets = crops.example(index, np.random.default_rng(index))
        low, high = pixels[0], targets["high"]
        assert low.shape == (8, 8, 3)
        assert high.shape == (16, 16, 3)
        views = [(np.rot90(a, k), np.rot90(b, k)) for k in range(4) for a, b in
                 ((low, high), (low[:, ::-1], high[:, ::-1]))]  # fmt: skip
        places = [
            (image, turn, top, left)
            for image, (full, large) in enumerate(zip(whole.low, whole.high, strict=True))
            for turn, (small_view, large_view) in enumerate(views)
            for top, left in _places(full, small_view)
            if (large[2 * top : 2 * top + 16, 2 * left : 2 * left + 16] == large_view).all()
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len({image for image, *_ in seen}) == 3
    assert len({turn for _, turn, *_ in seen}) == 8
    assert len(seen) > 35


def _places(image: np.ndarray, crop: np.ndarray) -> list[tuple[int, int]]:
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)[:, :, 0]
    return [tuple(place) for place in np.argwhere((windows == crop).all((2, 3, 4)))]


def test_crops_depend_on_the_generator_alone() -> None:
    crops = Crops(pairs(), (8, 10), flip=True)
    assert len(crops) == 3
    first, again = (crops.example(1, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    other, _ = crops.example(1, np.random.default_rng(6))
    assert (other != first[0]).any()


def test_large_images_give_more_crops() -> None:
    low, high = zip(shrink(photograph(40, 40), 2), shrink(photograph(200, 200, 1), 2), strict=True)
    low, high = (low[0], high[0]), (low[1], high[1])
    crops = Crops(ScaledImages(low, high, ("a", "b")), (16, 16), count=1000)
    small = {tuple(row) for row in low[0].reshape(-1, 3)}
    of_small = 0
    for index in range(300):
        pixels, _ = crops.example(index, np.random.default_rng(index))
        of_small += {tuple(row) for row in pixels[0].reshape(-1, 3)} <= small
    assert of_small < 20  # of 300 crops; by area, 1 of 290 places


def test_turns_need_squares() -> None:
    with pytest.raises(RecipeError, match=r"rotate: quarter turns need square crops"):
        Crops(pairs(), (8, 10), rotate=True)


def test_batches_of_training_and_of_validation(tmp_path) -> None:
    for i in range(10):
        save(tmp_path / f"{i}.png", photograph(60 + i, 72, seed=i))
    fields = data(
        batch_size=4, crop_size=12, epoch_images=8, augment={"flip": True, "rotate": True}
    )
    source = TASK.load(fields, tmp_path)
    loader = TASK.loader(source, "train", fields, training=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 2
    images, targets = batches[0]
    assert images.shape == (4, 3, 12, 12)
    assert targets["high"].shape == (4, 24, 24, 3)
    images, targets = next(iter(TASK.loader(source, "val", fields, training=False)))
    assert images.shape[2] * 2 == targets["high"].shape[1]


# --- loss ---


def test_the_loss_is_the_mean_difference_of_normalised_pixels() -> None:
    high = photograph(8, 8)
    exact = torch.from_numpy(normalised(high))
    targets = {"high": torch.from_numpy(high)[None]}
    assert TASK.loss((exact,), targets) < 1e-6
    assert TASK.loss((exact + 0.5,), targets).item() == pytest.approx(0.5, rel=1e-5)


def test_a_network_of_another_scale_is_refused() -> None:
    high = photograph(8, 8)
    targets = {"high": torch.from_numpy(high)[None], "scale": torch.tensor([2])}
    with pytest.raises(DataError, match=r"12x12 pixels where the data have 8x8"):
        TASK.loss((torch.zeros(1, 3, 12, 12),), targets)
    arrays = {name: value.numpy() for name, value in targets.items()}
    with pytest.raises(DataError, match="made for another scale"):
        TASK.records((np.zeros((1, 3, 12, 12), np.float32),), arrays)


# --- scores ---


def test_luma_is_bt601() -> None:
    image = np.uint8([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]])
    np.testing.assert_allclose(luma(image)[0], [16, 235, 81.481, 40.966], atol=1e-9)


def test_psnr_leaves_the_border_out() -> None:
    truth = photograph(20, 20)
    image = truth.copy()
    image[:2] = 255 - image[:2]
    assert psnr_y(image, truth, 2) == 100.0
    grey = np.full((20, 20, 3), 100, np.uint8)
    # a step of grey is 219/255 of a step of luma
    step = 219 / 255
    assert psnr_y(grey + np.uint8(10), grey, 2) == pytest.approx(
        20 * np.log10(255 / (10 * step)), abs=1e-9
    )


def test_ssim_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    truth = photograph(24, 26)
    noisy = np.clip(truth + generator.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    first, second = (luma(image)[2:-2, 2:-2] for image in (noisy, truth))
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    found = []
    for y in range(first.shape[0] - 10):
        for x in range(first.shape[1] - 10):
            a, b = (part[y : y + 11, x : x + 11] for part in (first, second))
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * a * a).sum() - ma**2, (weights * b * b).sum() - mb**2
            covariance = (weights * a * b).sum() - ma * mb
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            found.append(
                (2 * ma * mb + c1) * (2 * covariance + c2)
                / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )  # fmt: skip
    assert ssim_y(noisy, truth, 2) == pytest.approx(np.mean(found), abs=1e-9)
    assert ssim_y(truth, truth, 2) == pytest.approx(1.0)


@needs_benchmark
@pytest.mark.parametrize(
    ("scale", "psnr", "ssim"), [(2, 33.67, 0.930), (3, 30.40, 0.868), (4, 28.43, 0.811)]
)
def test_bicubic_enlargement_of_set5_has_its_published_scores(
    scale: int, psnr: float, ssim: float
) -> None:
    """PSNR of Pillow's enlargement; SSIM as published for MATLAB's, which is nearly the same."""
    fields = data(name="benchmark", scale=scale)
    source = load_scaled("benchmark", BENCHMARK, scale=scale)

    def bicubic(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        _, height, width, _ = pixels.shape
        large = Image.fromarray(pixels[0]).resize(
            (scale * width, scale * height), Image.Resampling.BICUBIC
        )
        return (normalised(np.asarray(large)),)

    scores = TASK.summarize(list(TASK.evaluate(bicubic, source, "test", fields)))
    assert scores["psnr_y"] == pytest.approx(psnr, abs=0.005)
    assert scores["ssim_y"] == pytest.approx(ssim, abs=0.002)


def test_scores_are_means_over_images() -> None:
    records = [(30.0, 0.9), (40.0, 0.8)]
    assert TASK.summarize(records) == {"psnr_y": 35.0, "ssim_y": pytest.approx(0.85)}
    low, high = bootstrap(TASK, records, rounds=50)["psnr_y"]
    assert 30 <= low <= high <= 40


def test_facts_are_plain_data() -> None:
    source = load_scaled("skimage", None, scale=3)
    facts = TASK.facts(source, data(scale=3))
    assert facts == {"scale": 3, "mean": [0.4] * 3, "std": [0.25] * 3}
    assert TASK.model_arguments(source, data(scale=3)) == {"scale": 3, "in_channels": 3}
