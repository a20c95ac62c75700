"""Masks from scores: as PyTorch enlarges them; sessions of the engine; files of other tasks."""

import numpy as np
import pytest
import torch
from torch import nn

import signbit
from signbit.errors import FormatError, SessionError
from signbit.nn import QuantConv2d
from signbit.runtime import segment
from signbit.runtime.segmentation import mask_of_scores

CLASSES = ["dark", "red", "green"]


@pytest.mark.parametrize("size", [(30, 40), (60, 81), (300, 7), (9, 12), (8, 10), (1, 1)])
@pytest.mark.parametrize("shape", [(5, 9, 12), (1, 3, 3), (2, 1, 1)])
def test_masks_are_the_best_of_scores_that_pytorch_enlarges(shape, size):
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wide = torch.from_numpy(scores.astype(np.float64))[None]
    enlarged = nn.functional.interpolate(wide, size=size, mode="bilinear")[0].numpy()
    mask = mask_of_scores(scores, size)
    assert mask.dtype == np.uint8
    assert mask.shape == size
    # the best but for rounding
    found = np.take_along_axis(enlarged, mask[None].astype(int), 0)[0]
    assert (found >= enlarged.max(0) - 1e-5).all()


def test_of_equal_scores_the_first_class_wins():
    scores = np.zeros((4, 2, 2), np.float32)
    scores[2:] = 1
    assert (mask_of_scores(scores, (5, 5)) == 2).all()


class Colours(nn.Module):
    """Scores at a quarter of the resolution: how red and how green an image is; 0 for dark."""

    def __init__(self):
        super().__init__()
        self.conv = QuantConv2d(3, 3, 4, 4, bias=True)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[1, 0] = self.conv.weight[2, 1] = 1 / 16
            self.conv.bias.copy_(torch.tensor([0.25, 0.0, 0.0]))

    def forward(self, x):
        return self.conv(x)


def session_of(model=None, **changes):
    model = Colours() if model is None else model
    x = torch.rand(2, 3, 32, 48)
    signbit.calibrate(model.eval(), [torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand_as(x)])
    metadata = {
        "task": "segmentation",
        "class_names": CLASSES,
        "decode": {"image_size": [32, 48], "stride": 32},
    } | changes
    program = signbit.compile(
        model, x, preprocessing={"mean": [0.0] * 3, "std": [1.0] * 3}, metadata=metadata
    )
    return program.session(threads=1)


def half_red_half_green(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    return image


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (96, 96), (20, 30)])
def test_an_image_is_scaled_as_in_training_and_its_mask_is_of_its_size(size):
    mask = segment(session_of(), half_red_half_green(*size))
    truth = np.zeros(size, np.uint8)
    truth[:, : size[1] // 2] = 1
    truth[: size[0] // 2, size[1] // 2 :] = 2
    assert mask.shape == size
    assert (mask == truth).mean() > 0.9


def test_without_resizing_the_network_sees_the_image_itself():
    seen = []
    session = session_of()

    class Spy:
        metadata, input_shape = session.metadata, session.input_shape

        def __call__(self, x):
            seen.append(x.shape)
            return session(x)

    image = half_red_half_green(64, 72)
    segment(Spy(), image)
    segment(Spy(), image, resize=False)
    segment(session_of(decode={"image_size": None, "stride": 32}), image)
    assert seen == [(32, 48, 3), (64, 72, 3)]


def test_images_too_small_for_the_network_are_refused():
    image = half_red_half_green(20, 64)
    assert segment(session_of(), image).shape == (20, 64)  # scaled up
    with pytest.raises(SessionError, match=r"64x20 pixels is too small: .* stands for 32x32"):
        segment(session_of(), image, resize=False)
    with pytest.raises(SessionError, match=r"expected one image of uint8 pixels"):
        segment(session_of(), image[None])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "detection"}, "made for 'detection', not for segmentation"),
        ({"decode": None}, "not for segmentation"),
        ({"decode": {"stride": 32, "image_size": [32, 0]}}, "decode has no sizes"),
        ({"decode": {"stride": 32, "image_size": 7}}, "decode has no sizes"),
        ({"decode": {"stride": 0, "image_size": None}}, "decode has no sizes"),
    ],
)
def test_other_files_are_refused(changes, message):
    with pytest.raises(FormatError, match=message):
        segment(session_of(**changes), half_red_half_green(32, 48))


def test_vectors_are_not_scores():
    class Pooled(Colours):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    with pytest.raises(FormatError, match="expected one map of scores"):
        segment(session_of(Pooled()), half_red_half_green(32, 48))
