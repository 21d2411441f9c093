"""Settings of the pages; the reference is written from the code at each build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pages

from hardy.registry import KINDS

project = "Hardy"
author = "The authors of Hardy"
copyright = "the authors of Hardy, Apache-2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Hardy"
html_static_path: list[str] = []
html_show_sourcelink = False


def _write_reference(app: object, _config: object) -> None:
    pages.write(Path(app.srcdir) / "reference", KINDS)


def setup(app: object) -> dict[str, bool]:
    """Write the reference before any page is read."""
    app.connect("config-inited", _write_reference)
    return {"parallel_read_safe": True}
