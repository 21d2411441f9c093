"""One thread for every test, and where the real images are."""

import gc
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image

torch.set_num_threads(1)
gc.disable()  # while thousands of tests are collected; see `pytest_collection_finish`


SLOW = {"cli", "commands", "contracts", "deployment", "engine", "fuzz", "kill", "networks"}
"""Folders whose tests train, export or start processes: marked slow as a group. Others mark single tests."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Slow folders are not even imported where their tests are deselected."""
    deselected = "not slow" in str(config.option.markexpr)
    return True if deselected and collection_path.name in SLOW and collection_path.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the slow folders."""
    for item in items:
        if item.path.parent.name in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it after every test.

    Compiled files are kept of tests and of Hardy, not of the modules that tests write into folders that they look at.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)  # syntax trees and graphs take half the time, and hold little memory
    gc.enable()


def pytest_unconfigure() -> None:
    """At the end all of it is garbage again; extension modules complain of what is left."""
    gc.unfreeze()


def _shared() -> Path:
    return Path(os.environ.get("HARDY_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests measure is not kept among the user's own measurements."""
    os.environ["HARDY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """The exporter reads its table of ONNX operators once, not anew for every file: most of the time of a small one."""
    export = torch.onnx.export
    with pytest.MonkeyPatch.context() as patch:

        def quick(*args: object, **options: object) -> object:
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            if not isinstance(vars(ONNXRegistry)["from_torchlib"], staticmethod):
                patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
            return export(*args, **options)

        patch.setattr(torch.onnx, "export", quick)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_tables() -> Iterator[None]:
    """Layers are timed five times at most, not fifteen: no test says how exactly."""
    from hardy.timing import layer_times

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_times, "_MOST", 5)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_calls() -> Iterator[None]:
    """The command line is built once, not for every call; files are not forced to the disk: no test loses its power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; the test is skipped by name where it is missing."""
    if not (_shared() / "camvid").is_dir():
        pytest.skip(f"no real images at {_shared()}; set HARDY_DATA")
    return _shared()


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set that a network can learn: 24 images of 32x48 pixels in the domains ``day`` and ``night``.

    Sky above, road below, a wall between them; the horizon and the light differ from image to image.
    """
    root = tmp_path_factory.mktemp("town")
    (root / "classes.yaml").write_text("- {name: road}\n- {name: wall}\n- {name: sky}\n")
    for domain, light in (("day", 1.0), ("night", 0.4)):
        for kind in ("images", "masks"):
            (root / kind / domain).mkdir(parents=True)
        for number in range(12):
            draw = np.random.default_rng([number, int(10 * light)])
            mask = np.full((32, 48), 2, dtype=np.uint8)
            mask[draw.integers(8, 14) :] = 1
            mask[draw.integers(18, 24) :] = 0
            image = np.array([[90, 90, 95], [170, 90, 60], [120, 170, 230]])[mask] + draw.normal(0, 12, (32, 48, 3))
            mask[:, -2:] = 255
            Image.fromarray((image * light).clip(0, 255).astype(np.uint8)).save(
                root / "images" / domain / f"{number:02}.png"
            )
            Image.fromarray(mask).save(root / "masks" / domain / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def save_png16() -> Callable[[Path, np.ndarray], Path]:
    """A function that writes images of 16 bits per channel, as the labels of SYNTHIA are."""

    def save(path: Path, pixels: np.ndarray) -> Path:
        """Write ``pixels`` (H, W, C) as a PNG of 16 bits per channel, with each filter in turn on its rows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width, channels = pixels.shape
        head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
        raw = np.frombuffer(pixels.astype(">u2").tobytes(), dtype=np.uint8).reshape(height, -1).astype(int)
        around = np.pad(raw, ((1, 0), (2 * channels, 0)))
        left, up, corner = around[1:, : -2 * channels], around[:-1, 2 * channels :], around[:-1, : -2 * channels]
        away = np.stack([np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)])
        paeth = np.choose(away.argmin(0), [left, up, corner])
        guesses = (0 * raw, left, up, (left + up) // 2, paeth)
        rows = (bytes([y % 5]) + (raw - guesses[y % 5])[y].astype(np.uint8).tobytes() for y in range(height))
        parts = (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        return path

    return save
