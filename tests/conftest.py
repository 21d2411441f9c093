"""One thread for every test, and where the real images are."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


def _shared() -> Path:
    return Path(os.environ.get("HARDY_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; the test is skipped by name where it is missing."""
    if not (_shared() / "camvid").is_dir():
        pytest.skip(f"no real images at {_shared()}; set HARDY_DATA")
    return _shared()
