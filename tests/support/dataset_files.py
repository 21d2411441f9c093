"""What the tests of readers share: writing pictures and masks, and looking at what a reader made of them."""

import numpy as np
import pytest
from PIL import Image

from hardy.errors import InputError

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def save(path, pixels, mode=None):
    """Write ``pixels`` (H, W) or (H, W, 3), converted to ``mode``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def save_mask(path, ids):
    """Write ``ids`` (H, W) as a palette PNG whose colours say nothing of them; or (H, W, 3) as they are."""
    if ids.ndim == 3:
        return save(path, ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    image.save(path)
    return path


def row_of(ids, width=None):
    """A mask with every one of ``ids`` and ids from its start after them, two rows alike, the second reversed."""
    ids = [*ids, *ids][: width or len(ids)]
    return np.array([ids, ids[::-1]], dtype=np.uint8)


def counts(dataset):
    """How many items there are, by domain and split."""
    return {domain: {split: len(items) for split, items in s.items()} for domain, s in dataset.index().items()}


def names(dataset):
    """The stems of the images, by domain and split."""
    return {
        domain: {split: [item[0].stem for item in items] for split, items in splits.items()}
        for domain, splits in dataset.index().items()
    }


def only_item(dataset):
    """The first item there is."""
    return next(item for splits in dataset.index().values() for items in splits.values() for item in items)


def refused(message, action, *arguments):
    """Assert that ``action`` is refused with one line that matches ``message``."""
    with pytest.raises(InputError, match=message) as error:
        action(*arguments)
    assert "\n" not in str(error.value)
