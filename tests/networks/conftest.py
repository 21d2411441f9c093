"""What the tests of networks share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SIZES = {"test_size", "test_size_as_a_classifier", "test_size_with_auxiliary_heads"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the sizes of one network `make test-costly` tries the first row; `test_check_table` is in `make test`."""
    tried: set[Path] = set()
    for item in items:
        own = item.path.parent == Path(__file__).parent and item.path.name != "test_check_table.py"
        if own and getattr(item, "originalname", None) == "test_size":
            item.add_marker(pytest.mark.exhaustive if item.path in tried else pytest.mark.costly)
            tried.add(item.path)


@pytest.fixture(autouse=True)
def counted_without_weights(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of sizes build their networks on the ``meta`` device: they count, and need no weights."""
    with torch.device("meta" if request.node.originalname in SIZES else "cpu"):
        yield
