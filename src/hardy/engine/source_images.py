"""Images of the source domains of a run, for methods of test-time adaptation that are not source-free, such as eata.

They are drawn from the training images, never from those held out, in equal shares of the domains that can be read.
"""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from hardy.data import loader, sources
from hardy.data.sources import Source
from hardy.engine.run_folder import Origin
from hardy.errors import InputError
from hardy.recipe import Data
from hardy.seed import key

__all__ = ["MOST", "of_run", "source_images"]

MOST = 500
"""How many images are drawn at most; the paper of eata takes 500 to 2000."""


def source_images(data: Data, seed: int, *, most: int = MOST) -> Iterator[Tensor] | None:
    """Up to ``most`` images (1, 3, H, W) of ``data.sources``, RGB in [0, 1], one by one; None if none are named.

    Nothing is read before the first image is asked for.

    Args:
        data: the section of the run that trained the network.
        seed: the run's; it decides which images are held out, and which are drawn.
        most: over all domains.

    Raises:
        InputError: from the iterator, when no source domain can be read, naming the first and why.
    """
    return _images(data, seed, most) if data.sources else None


def of_run(origin: Origin, root: str | None = None) -> Iterator[Tensor] | None:
    """The `source_images` of the run that made a network; None where there is no recipe.

    Args:
        origin: of the network.
        root: folder of the data sets, in place of the recipe's.
    """
    if origin.recipe is None:
        return None
    data = origin.recipe.data
    return source_images(data.model_copy(update={"root": root}) if root else data, origin.seed)


def _images(data: Data, seed: int, most: int) -> Iterator[Tensor]:
    readable, failed = _readable(data, seed)
    if not readable:
        raise InputError(
            f"adapt: it needs images of the source domains, and none can be read; the first, {failed[0]}; give "
            "data.root, or a method that is source-free, such as eta"
        )
    for source in readable:
        domain, items = source.domain, source.train
        order = np.random.default_rng(key(seed, "source images", domain.name)).permutation(len(items))
        drawn = [items[place] for place in order[: max(1, most // len(readable))]]
        for batch in loader.evaluation_batches([(domain, drawn)], domain.dataset.label_space, resize=data.size):
            yield batch.images


def _readable(data: Data, seed: int) -> tuple[list[Source], list[str]]:
    """The sources that are there, each split as it was for training, and why others are not."""
    root, found, failed = sources.data_root(data.root), list[Source](), list[str]()
    for name in data.sources:
        try:
            known = sources.domains([name], root=root, options=data.datasets)
            found += sources.sources(known, split=data.split, share=data.holdout, seed=seed)
        except (InputError, OSError) as error:
            failed.append(f"{name}: {' '.join(str(error).split())}")
    return found, failed
