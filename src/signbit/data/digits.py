"""Handwritten digits, the embedded default: scikit-learn's copy of the UCI set.

1,797 images of 8x8 grey pixels, values 0..16, collected from 43 people (E. Alpaydin, C. Kaynak,
"Optical Recognition of Handwritten Digits", UCI, 1998). Real, and no download.
"""

from __future__ import annotations

import numpy as np

from signbit.data.base import DataSource, ImageDataset, make_source, stratified_cut


def load_digits(val_size: int | None = None) -> DataSource:
    """The digits: 8x8x1, ten classes, a fixed fifth of every class as the test set.

    Values 0..16 become bytes by ``round(v * 255 / 16)``.
    """
    from sklearn import datasets

    raw = datasets.load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    everything = ImageDataset(images, raw.target.astype(np.int64))
    train, test = stratified_cut(everything.labels, round(len(images) * 0.2))
    return make_source(
        "digits",
        everything.subset(train),
        everything.subset(test),
        [str(name) for name in raw.target_names],
        val_size=val_size,
    )
