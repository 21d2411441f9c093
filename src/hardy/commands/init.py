"""``hardy init``: a first recipe, and the JSON schema that lets an editor complete and check recipes."""

import json
from pathlib import Path

from hardy import schema
from hardy.commands.output.printing import say
from hardy.errors import InputError
from hardy.files import write_text
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
optim: {name: sgd, lr: 0.045, steps: 1500, batch: 12, weight_decay: 4.0e-5}
evaluate: {select: source-val, every: 300}
run: {folder: runs/first, seed: 0}
"""


def run(folder: Path) -> None:
    """Write ``recipe.yaml``, its schema and the schema of studies into ``folder``.

    Raises:
        InputError: when there is a recipe already.
    """
    target = folder / "recipe.yaml"
    if target.exists():
        raise InputError(f"{target}: is there already; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "recipe.schema.json": json.dumps(schema.schema(), indent=1),
        "study.schema.json": json.dumps(Study.model_json_schema(), indent=1),
        "recipe.yaml": _FIRST,
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    say(f"wrote {target} and its schema; look through it, then: hardy train {target}")
