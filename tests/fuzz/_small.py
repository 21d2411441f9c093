"""The least that can be trained on: eight images of two classes, and a recipe of six steps."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["sections"]


def sections(folder: Path) -> dict[str, Any]:
    """The sections of a recipe whose images this writes below ``folder``, and whose run is ``folder / "run"``."""
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "data" / kind / "day").mkdir(parents=True)
    (folder / "data" / "classes.yaml").write_text("- {name: road}\n- {name: sky}\n", encoding="utf-8")
    for number in range(8):
        mask = (draw.random((32, 32)) > 0.5).astype(np.uint8)
        Image.fromarray(mask).save(folder / "data" / "masks" / "day" / f"{number}.png")
        image = np.stack([mask * 200] * 3, -1).astype(np.uint8)
        Image.fromarray(image).save(folder / "data" / "images" / "day" / f"{number}.png")
    return {
        "network": {"name": "tiny", "width": 8, "classes": str(folder / "data")},
        "data": {"sources": ["folder/day"], "root": str(folder / "data"), "crop": [32, 32]},
        "optim": {"steps": 6, "batch": 2, "ema": 0.9, "name": "adamw"},
        "evaluate": {"select": "source-val", "every": 2},
        "run": {"folder": str(folder / "run"), "workers": 0, "device": "cpu", "checkpoint_every": 2},
    }


def pixels_of(mask: Path) -> bytes:
    """The class ids of a mask, whatever else its file holds."""
    with Image.open(mask) as image:
        return np.array(image).tobytes()
