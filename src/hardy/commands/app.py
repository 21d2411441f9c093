"""``hardy app``: a page in the browser that compares the predictions of several networks on an image.

The page is made with Gradio (the extra ``app``); its content comes from `hardy.engine.beside`. Only this machine can
open it, and Gradio's telemetry is off.
"""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hardy.commands.output.printing import say
from hardy.engine.beside import Look, look
from hardy.engine.predictor import check, fixed_size, network_of
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["compared", "page", "run"]

HOST = "127.0.0.1"
COLUMNS = ("network", "ms", "classes")
_MOST_CLASSES = 5


def run(places: Sequence[Path], *, size: Sequence[int] | None = None, port: int | None = None, device: str) -> None:
    """Serve the page for the networks at ``places``, which are runs or exported files, until the user stops it.

    Raises:
        InputError: if Gradio is missing, or for a network, a size or a port that cannot be used.
    """
    gradio = _gradio()
    networks = named(places)
    for network in networks.values():
        fixed_size(network, size, None, 1)
        check(network, {"size": size}, 1)
    made = page(gradio, networks, size, device)
    try:
        _, address, _ = made.launch(
            server_name=HOST, server_port=port, share=False, quiet=True, inbrowser=False, prevent_thread_lock=True
        )
    except OSError:
        raise InputError(f"--port {port}: it is in use; give another, or leave it out") from None
    say(f"{address} compares {', '.join(networks)}; Ctrl-C stops it")
    made.block_thread()


def named(places: Sequence[Path]) -> dict[str, Network]:
    """The networks at ``places`` by name: the last part of the path, or the whole path if two names would be the same.

    Raises:
        InputError: for a place that is given twice or contains no network.
    """
    if twice := [place for place in places if places.count(place) > 1]:
        raise InputError(f"{twice[0]}: it is given twice; name each network once")
    names = [place.stem if place.suffix == ".onnx" else place.resolve().name for place in places]
    names = [name if names.count(name) == 1 else str(place) for name, place in zip(names, places, strict=True)]
    return {name: network_of(place) for name, place in zip(names, places, strict=True)}


def compared(
    networks: Mapping[str, Network],
    image: np.ndarray | None,
    chosen: Sequence[str],
    *,
    size: Sequence[int] | None,
    device: str,
) -> tuple[list[tuple[Any, str]], list[list[str]]]:
    """What the page shows: overlays with captions, and a row under `COLUMNS` for each of the ``chosen`` networks."""
    if image is None:
        return [], []
    looks = look({name: networks[name] for name in networks if name in chosen}, image, size=size, device=device)
    pictures = [(one.overlay, f"{one.name}: {one.milliseconds:.0f} ms") for one in looks if one.overlay is not None]
    return pictures, [[one.name, *_row_of(one)] for one in looks]


def _row_of(one: Look) -> list[str]:
    if one.reason:
        return ["–", one.reason]
    parts = [f"{name} {100 * share:.0f} %" for name, share in list(one.shares.items())[:_MOST_CLASSES]]
    more = len(one.shares) - len(parts)
    return [f"{one.milliseconds:.1f}", ", ".join(parts) + (f" and {more} more" if more else "")]


def page(gradio: Any, networks: Mapping[str, Network], size: Sequence[int] | None, device: str) -> Any:
    """The Gradio page: its input is an image, its output overlays side by side and a table."""

    def changed(image: np.ndarray | None, chosen: Sequence[str]) -> Any:
        pictures, rows = compared(networks, image, chosen, size=size, device=device)
        found = {caption.rpartition(":")[0]: (caption, picture) for picture, caption in pictures}
        shown = [found.get(name, (name, None)) for name in networks]
        boxes = [
            gradio.Image(value=picture, label=caption, visible=name in chosen)
            for name, (caption, picture) in zip(networks, shown, strict=True)
        ]
        return [*boxes, rows]

    with gradio.Blocks(title="Hardy", analytics_enabled=False) as made:
        gradio.Markdown(f"# Hardy\nDrop a picture: {escape(', '.join(networks))} side by side.")
        with gradio.Row():
            image = gradio.Image(type="numpy", image_mode="RGB", label="Picture", sources=["upload", "clipboard"])
            chosen = gradio.CheckboxGroup(list(networks), value=list(networks), label="Networks")
        with gradio.Row():
            buttons = ["download", "fullscreen"]  # Gradio's default buttons also share pictures on a website
            boxes = [
                gradio.Image(label=name, interactive=False, min_width=300, format="png", buttons=buttons)
                for name in networks
            ]
        table = gradio.Dataframe(
            headers=list(COLUMNS),
            label="Time and classes",
            interactive=False,
            wrap=True,
            column_widths=["30%", "20%", "50%"],
        )
        for part in (image, chosen):
            part.change(changed, [image, chosen], [*boxes, table])
    return made


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it with: pip install 'hardy[app]'") from None
    return gradio
