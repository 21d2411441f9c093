"""Weights that others wrote: safetensors and torch files, through ``import``."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from random import Random
from typing import Any

import torch
from _harness import Case
from _mutations import damaged
from published_names import espnet, values
from safetensors.torch import load, save


def prepare(folder: Path) -> dict[str, bytes]:
    """The smallest ESPNet under its published names, of 12 classes, in four files."""
    weights = values(espnet(12, 2, 3))
    plain, nested, legacy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(OrderedDict(weights), plain)
    torch.save({"state_dict": weights, "epoch": 3}, nested)
    torch.save(weights, legacy, _use_new_zipfile_serialization=False)
    pickled = {"a.pth": plain, "b.pth": nested, "c.pth": legacy}
    return {"a.safetensors": save(weights), **{name: file.getvalue() for name, file in pickled.items()}}


def case(draw: Random, base: dict[str, bytes], folder: Path) -> Case:
    """One of the files with bytes, tensors or the pickle changed."""
    name = draw.choice(sorted(base))
    how = draw.choice(("bytes", "bytes", "tensors", "objects"))
    data = base[name]
    if how == "bytes":
        head = data[: draw.choice((2000, 20_000, len(data)))]  # where names and shapes are
        changed, note = damaged(head, draw)
        data = changed + data[len(head) :]
    elif how == "tensors":
        data, note = _tensors(load(base["a.safetensors"]), name, draw)
    else:
        found = draw.choice(_objects())
        data, note = found[1](), found[0]
    (folder / name).write_bytes(data)
    return Case(("import", folder / name, "--to", folder / "run", "--classes", "camvid11"), f"{name}: {how}: {note}")


def _tensors(weights: dict[str, torch.Tensor], name: str, draw: Random) -> tuple[bytes, str]:
    """A sound file of wrong tensors."""
    which = draw.choice(sorted(weights))
    value = weights[which]
    odd = {
        "nan": torch.full_like(value, float("nan")),
        "inf": torch.full_like(value, float("inf")),
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0),
        "deep": torch.zeros([1] * 20),
        "bool": value > 0,
        "complex": torch.zeros(value.shape, dtype=torch.complex64),
        "int": value.to(torch.int64),
        "half": value.half(),
        "spread": torch.zeros(1).expand(10**6, 10**6),
        "sparse": torch.zeros(3, 3).to_sparse(),
        "meta": torch.zeros(3, device="meta"),
        "transposed": value.transpose(0, -1),
    }
    how = draw.choice(sorted(odd))
    if draw.random() < 0.2:
        weights.pop(which)
        how = "gone"
    elif draw.random() < 0.2:
        weights[which * 50] = weights.pop(which)
        how = "long name"
    else:
        weights[which] = odd[how]
    if name.endswith(".safetensors"):
        plain = {key: value.contiguous().clone() for key, value in weights.items() if key != which}
        kept = which in weights and how not in ("spread", "sparse", "meta")
        return save({**plain, **({which: weights[which].contiguous().clone()} if kept else {})}), f"{how}: {which}"
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue(), f"{how}: {which}"


def _objects() -> list[tuple[str, Any]]:
    """Pickles that are no state dict, none of which may run."""

    def saved(value: Any) -> Any:
        def make() -> bytes:
            file = io.BytesIO()
            torch.save(value, file)
            return file.getvalue()

        return make

    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    return [
        ("a list", saved([torch.zeros(2)])),
        ("a number", saved(3)),
        ("nothing", saved(None)),
        ("numbers as names", saved({1: torch.zeros(2)})),
        ("nested", saved({"state_dict": {"model": {"state_dict": {}}}})),
        ("deep", saved(nested)),
        ("text", saved({"weight": "text"})),
        ("empty", saved({})),
        ("a plain pickle", lambda: pickle.dumps({"a": 1})),
        ("a call", lambda: b"cos\nsystem\n(S'false'\ntR."),
        ("a protocol", lambda: b"\x80\xff."),
        ("memo", lambda: b"\x80\x02h\xffq\x00."),
        ("marks", lambda: b"((((((((((."),
        ("long", lambda: b"\x80\x02\x8b\xff\xff\xff\x7f."),
    ]
