"""What the tests of networks share."""

from collections.abc import Iterator

import pytest
import torch

SIZES = {"test_size", "test_size_as_a_classifier", "test_size_with_auxiliary_heads"}


@pytest.fixture(autouse=True)
def counted_without_weights(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of sizes build their networks on the ``meta`` device: they count, and need no weights."""
    with torch.device("meta" if request.node.originalname in SIZES else "cpu"):
        yield
