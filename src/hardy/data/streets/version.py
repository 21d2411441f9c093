"""Which bits `streets` draws: its code, and the libraries and the processor that compute with it."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from platform import machine

import numpy as np
import PIL
from PIL import features

__all__ = ["version"]


@cache
def version() -> str:
    """16 hexadecimal digits that change when the code that draws changes, or what it computes with.

    numpy's kernels and those of its linear algebra are chosen by the processor's instructions, and round differently.
    """
    found = hashlib.blake2b(digest_size=8)
    for file in sorted(files("hardy.data.streets").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            found.update(file.read_bytes())
    found.update(files("hardy").joinpath("seed.py").read_bytes())
    kernels = np.show_config(mode="dicts")["SIMD Extensions"]
    with_what = [np.__version__, kernels, PIL.__version__, features.version("jpg"), machine()]
    found.update(json.dumps(with_what, default=str).encode())
    return found.hexdigest()
