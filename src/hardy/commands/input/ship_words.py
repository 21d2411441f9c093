"""The arguments of fold, predict, quantize, push, pull, report, runs and app; and which commands read ``--json``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from hardy.commands.input.arguments import (
    Adapting,
    DatasetOptions,
    Device,
    Root,
    RunFolder,
    SizeText,
    Trust,
    typed,
)
from hardy.commands.input.words import nested, size_of

__all__ = ["fold", "look", "own_json", "predict", "pull", "push", "quantize", "report", "runs"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def fold(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(help="A new folder for the folded network.")],
    domains: Annotated[
        list[str] | None, typer.Argument(help="Domains whose images prove it (else random images).", callback=typed)
    ] = None,
    *,
    size: SizeText = "512x1024",
    images: Annotated[int | None, typer.Option(min=1, help="Images of each domain that prove it (else 20).")] = None,
    root: Root = None,
    trust: Trust = None,
) -> None:
    """Fold batch norms into other layers, prove equal outputs, and save the network for evaluate, bench and export."""
    from hardy.commands import fold as command

    command.run(run, folder, domains or (), size=size_of(size) or (512, 1024), images=images, root=root)


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an exported .onnx file.")],
    source: Annotated[str, typer.Argument(help="An image, folder, 'pattern*.jpg', video, or camera:0.")],
    target: Annotated[Path, typer.Argument(help="Folder for the masks.")],
    adapt: Adapting = None,
    *,
    size: SizeText = None,
    window: SizeText = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the image mixed with its mask.")] = False,
    coloured: Annotated[bool, typer.Option("--coloured", help="Also write the mask as an RGB image.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Also write the probability of each class.")] = False,
    batch: Annotated[int, typer.Option(help="Images of equal size per batch.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for new images in the folder until Ctrl-C.")] = False,
    idle: Annotated[
        float | None, typer.Option(help="With --watch: stop after this many seconds without a new image.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Share the images on a Ray cluster: auto or HOST:PORT.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Only this many frames of a video or camera.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    trust: Trust = None,
) -> int:
    """Write a palette PNG mask for every image; a second call resumes. Exit code 1 if images were skipped."""
    from hardy.commands import predict as command

    kinds = {"overlay": overlay, "coloured": coloured, "confidence": confidence}
    return command.run(
        run,
        source,
        target,
        size=size_of(size),
        window=size_of(window),
        draw=[kind for kind, asked in kinds.items() if asked],
        device=device,
        words=adapt or (),
        batch=batch,
        frames=frames,
        watch=watch,
        idle=idle,
        address=address,
        trust=trust or (),
        json=json,
    )


def quantize(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    domains: Annotated[
        list[str] | None,
        typer.Argument(help="Domains to measure (else the run's held-out and unseen images).", callback=typed),
    ] = None,
    *,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(help="Calibrate on this domain (else the run's sources); repeat for several.", callback=typed),
    ] = None,
    size: SizeText = "512x1024",
    limit: Annotated[float, typer.Option(min=0, help="Points of mIoU that a domain may lose.")] = 2.0,
    images: Annotated[int, typer.Option(min=1, help="Images of each domain, to calibrate and to measure.")] = 32,
    logits: Annotated[bool, typer.Option(help="Logits instead of uint8 class ids.")] = False,
    root: Root = None,
    dataset: DatasetOptions = None,
    json: Json = False,
    trust: Trust = None,
) -> None:
    """Write an int8 ONNX file and measure the loss of every domain; no file is written if one is over the limit."""
    from hardy.commands import quantize as command

    command.run(
        run,
        file,
        domains or (),
        calibrate=calibrate or (),
        size=size_of(size) or (512, 1024),
        limit=limit,
        images=images,
        output="logits" if logits else "classes",
        root=root,
        datasets=nested(dataset) or None,
        json=json,
    )


def push(
    run: RunFolder,
    to: Annotated[str, typer.Argument(help="A folder, or hf-hub:OWNER/NAME.")],
    licence: Annotated[str | None, typer.Option(help="Licence of the network, such as apache-2.0.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Everyone can read a new repository on the hub.")] = False,
    trust: Trust = None,
) -> None:
    """Push a network with its card: domains, numbers, lineage, licence."""
    from hardy.commands import hub

    hub.push(run, to, licence=licence, public=public)


def pull(
    source: Annotated[str, typer.Argument(help="A pushed folder, or hf-hub:OWNER/NAME[@REVISION].")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the network.")],
    trust: Trust = None,
) -> None:
    """Pull a network: check it, run none of its code, and keep it only if it is complete."""
    from hardy.commands import hub

    hub.pull(source, folder, trust=trust or ())


def runs(
    words: Annotated[
        list[str] | None, typer.Argument(help="A folder with runs (else runs); or compare RUN RUN ...; or rm RUN ...")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Another metric of the records: iou/vessel.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With rm: remove without asking.")] = False,
) -> int:
    """List the runs of a folder with their headline numbers; compare runs; or remove runs, after a question."""
    from hardy.commands import runs as command

    word, *rest = words or ["runs"]
    if word == "compare":
        command.compare([Path(each) for each in rest], metric=metric)
    elif word == "rm":
        return command.remove([Path(each) for each in rest], yes=yes)
    else:
        command.run(Path(word), *map(Path, rest), metric=metric)
    return 0


def own_json(app: typer.Typer, words: list[str]) -> bool:
    """Whether the command in ``words`` reads ``--json`` itself."""
    here: Any = get_command(app)
    for word in words:
        inside = getattr(here, "commands", {})
        if word in inside:
            here = inside[word]
        elif not word.startswith("-"):
            break
    return any("--json" in parameter.opts for parameter in here.params)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or studies, or folders that contain them.")],
    out: Annotated[Path, typer.Option("--to", "--out", help="The page to write.")] = Path("report.html"),
    budget_ms: Annotated[float | None, typer.Option(help="Milliseconds that one image may take.")] = None,
    title: Annotated[str, typer.Option(help="The title of the page.")] = "Hardy report",
) -> None:
    """Write one self-contained page from records: what to ship and why, domains, classes, images, costs, commands."""
    from hardy.commands import report as command

    command.run(runs, out, budget=budget_ms, title=title)


def look(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or exported .onnx files.")],
    size: SizeText = None,
    port: Annotated[
        int | None, typer.Option(min=1024, max=65535, help="Port on this machine (else a free one).")
    ] = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Open a page that compares networks on an image: masks side by side, times, classes."""
    from hardy.commands import app as command

    command.run(runs, size=size_of(size), port=port, device=device)
