"""Normalisation is the engine's, and batches are a function of (seed, epoch, step)."""

import numpy as np
import pytest
import torch

from signbit.data import Augmentation, BatchLoader, normalization_table, normalize
from signbit.data.base import ImageDataset


def dataset(count=50, size=(6, 5), channels=3):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *size, channels), np.uint8)
    return ImageDataset(images, np.arange(count))


def loader(data, **arguments):
    channels = data.images.shape[3]
    return BatchLoader(data, [0.0] * channels, [1.0] * channels, **arguments)


def test_normalisation_is_three_float32_operations_in_order():
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    result = normalize(images, mean, std)
    assert result.shape == (1, 3, 16, 16)
    assert result.dtype == np.float32
    for channel in range(3):
        for value in range(256):
            expected = np.float32(value) / np.float32(255)
            expected = expected - np.float32(mean[channel])
            expected = expected / np.float32(std[channel])
            assert result[0, channel, value // 16, value % 16] == expected
    assert (normalization_table(mean, std) == result.reshape(3, 256)).all()


def test_normalisation_refuses_what_does_not_fit():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="3 channels but statistics for 1"):
        normalize(image, [0.5], [0.5])
    with pytest.raises(ValueError, match="positive"):
        normalize(image, [0.5] * 3, [0.0] * 3)
    with pytest.raises(ValueError, match="uint8"):
        normalize(image.astype(np.float32), [0.5] * 3, [0.5] * 3)
    with pytest.raises(ValueError, match="2 means"):
        normalize(image, [0.5] * 2, [0.5] * 3)


def test_every_image_comes_once_an_epoch_in_another_order():
    batches = loader(dataset(), batch_size=10, shuffle=True, seed=3)
    orders = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        orders.append(torch.cat([labels for _, labels in batches]).tolist())
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1]
    assert orders[0] != list(range(50))


def test_images_stay_with_their_labels():
    data = dataset()
    for images, labels in loader(data, batch_size=16, shuffle=True):
        expected = normalize(data.images[labels.numpy()], [0.0] * 3, [1.0] * 3)
        assert (images.numpy() == expected).all()


def test_a_batch_depends_on_seed_epoch_and_step_only():
    augmentation = Augmentation(crop_padding=2, flip=True)

    def batches(seed, epoch):
        made = loader(dataset(), batch_size=10, shuffle=True, seed=seed, augmentation=augmentation)
        made.set_epoch(epoch)
        return [images for images, _ in made]

    first = batches(1, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, batches(1, 4), strict=True))
    assert not torch.equal(first[0], batches(2, 4)[0])
    assert not torch.equal(first[0], batches(1, 5)[0])


def test_indices_name_the_images_of_each_batch():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    loader = BatchLoader(
        ImageDataset(images, np.arange(20)), (0,), (1,), batch_size=6, seed=3, shuffle=True
    )
    for epoch in (2, 0):
        loader.set_epoch(epoch)
        batches = [labels.tolist() for _, labels in loader]
        assert [loader.indices(epoch, step).tolist() for step in range(3)] == batches
        assert loader.indices(epoch + 1, 0).tolist() != batches[0]


@pytest.mark.parametrize("flip", [True, False])
def test_processes_share_each_training_batch(flip):
    options = {
        "batch_size": 12, "seed": 3, "shuffle": True,
        "augmentation": Augmentation(crop_padding=2, flip=flip),
    }  # fmt: skip
    whole = loader(dataset(), **options)
    parts = [loader(dataset(), rank=rank, ranks=3, **options) for rank in range(3)]
    for each in (whole, *parts):
        each.set_epoch(5)
    assert {len(part) for part in parts} == {len(whole)} == {4}
    for step, (batch, *shares) in enumerate(zip(whole, *parts, strict=True)):
        for place in range(2):
            together = torch.cat([share[place] for share in shares])
            assert torch.equal(batch[place], together)
        indices = [index for part in parts for index in part.indices(5, step)]
        assert indices == batch[1].tolist()


@pytest.mark.parametrize("count", [3, 7, 11, 24, 25])
def test_processes_share_other_images_without_an_empty_batch(count):
    parts = [loader(dataset(count), batch_size=5, rank=rank, ranks=3) for rank in range(3)]
    batches = [[labels.tolist() for _, labels in part] for part in parts]
    sizes = [len(labels) for own in batches for labels in own]
    assert {len(own) for own in batches} == {-(-count // 15)}
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= 1
    images = [index for own in batches for labels in own for index in labels]
    assert sorted(images) == list(range(count))


def test_batches_that_processes_cannot_share():
    with pytest.raises(ValueError, match="3 processes cannot share batches of 10 of 50"):
        loader(dataset(), batch_size=10, shuffle=True, ranks=3)
    with pytest.raises(ValueError, match="2 processes cannot share batches of 60 of 50"):
        loader(dataset(), batch_size=60, shuffle=True, ranks=2)
    with pytest.raises(ValueError, match="3 processes cannot share 2 images"):
        loader(dataset(2), batch_size=1, ranks=3)


def test_incomplete_batches_are_dropped_in_training_only():
    assert [len(y) for _, y in loader(dataset(), batch_size=20, shuffle=True)] == [20, 20]
    assert [len(y) for _, y in loader(dataset(), batch_size=20)] == [20, 20, 10]
    assert [len(y) for _, y in loader(dataset(), batch_size=80, shuffle=True)] == [50]
    assert len(loader(dataset(), batch_size=20, shuffle=True)) == 2
    assert len(loader(dataset(), batch_size=20)) == 3


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_order(channels_last):
    images, _ = next(iter(loader(dataset(), batch_size=8, channels_last=channels_last)))
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=order)


@pytest.mark.parametrize("pad_mode", ["reflect", "zero"])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_windows_of_the_padded_image(pad_mode, flip):
    data = dataset(size=(7, 6))
    augmented = Augmentation(2, pad_mode, flip)(data.images, np.random.default_rng(5))
    mode = {"mode": "reflect"} if pad_mode == "reflect" else {"mode": "constant"}
    seen = set()
    for image, result in zip(data.images, augmented, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), **mode)
        windows = {
            (y, x, mirrored): window[:, ::-1] if mirrored else window
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            for window in [padded[y : y + 7, x : x + 6]]
        }
        found = [key for key, window in windows.items() if (window == result).all()]
        assert found
        seen.add(found[0])
    assert len({key[:2] for key in seen}) > 10
    assert {key[2] for key in seen} == ({False, True} if flip else {False})


def test_reflection_goes_any_distance():
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    for seed in range(20):
        result = Augmentation(5)(image, np.random.default_rng(seed))
        assert result.shape == image.shape
        assert set(result.ravel()) <= {0, 1, 2, 3}


def test_no_augmentation_changes_nothing():
    images = dataset().images
    assert Augmentation()(images, np.random.default_rng(0)) is images
