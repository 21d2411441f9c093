"""An algorithm from its name: what its constructor asks for by name is supplied, its options are checked."""

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError
from hardy.networks.base import Network, PixelLoss
from hardy.registry import ALGORITHMS

__all__ = ["build_algorithm"]


def build_algorithm(
    name: str, network: Network, pixel_loss: PixelLoss, teacher: Network | None = None, **options: object
) -> Algorithm:
    """The algorithm ``name`` on ``network`` with its options, and with the ``teacher`` where its constructor names one.

    Raises:
        InputError: for wrong options, and for an algorithm that learns from a teacher where there is none.
    """
    further = []
    for asked in ALGORITHMS.describe(name).supplied[2:]:
        if asked != "teacher":
            raise InputError(f"algorithm {name!r}: its constructor asks for {asked!r}; a run has a teacher at most")
        if teacher is None:
            raise InputError(
                f"algorithm: {name} learns from a teacher, and there is none here; name it as prune.recover_with, "
                "where the network before pruning teaches"
            )
        further.append(teacher)
    built = ALGORITHMS.build(name, network, pixel_loss, *further, **options)
    assert isinstance(built, Algorithm)
    return built
