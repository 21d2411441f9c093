"""The command line: verb + recipe + ``key=value`` -> command. Large libraries are imported when a verb runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hardy import __version__
from hardy.commands.input import completion
from hardy.commands.input.arguments import (
    DatasetOptions,
    Device,
    DomainsAdapting,
    Overrides,
    RecipeFile,
    Root,
    RunFolder,
    SizeText,
    StatisticsText,
    Trust,
    UpsampleText,
    typed,
)
from hardy.commands.input.data_words import data
from hardy.commands.input.ship_words import fold, look, own_json, predict, pull, push, quantize, report, runs
from hardy.commands.input.words import at_home, nested, size_of
from hardy.commands.output.as_json import as_json
from hardy.commands.output.ending import leave
from hardy.engine.stop import stop_with_parent
from hardy.ops.kept_memory import kept_memory
from hardy.trust import from_file

if TYPE_CHECKING:
    from hardy.recipe import Recipe

__all__ = ["app", "main"]

app = typer.Typer(
    name="hardy",
    pretty_exceptions_enable=False,
    help="Small segmentation networks that are robust in domains they have never seen.",
)
app.add_typer(data, name="data")


@app.callback(invoke_without_command=True)
def _without_verb(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
    json: Annotated[bool, typer.Option("--json", help="With any verb: print its numbers as one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="With any verb: print the traceback of an error.")] = False,
) -> None:
    if version:
        print(f"hardy {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None, trust: Trust = None) -> None:
    """Train the network of a recipe, measure it on every domain in the recipe, and save it. Resumes a stopped run."""
    from hardy.commands import train as command

    command.run(_recipe(recipe, overrides))


@app.command()
def prune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    ratio: Annotated[float | None, typer.Option(help="Share of filters removed, instead of the recipe's.")] = None,
    target_ms: Annotated[float | None, typer.Option(help="Upper limit of milliseconds per image.")] = None,
    target_gmacs: Annotated[float | None, typer.Option(help="Upper limit of billions of multiply-accumulates.")] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show how much each unit lowers the score; stop.")
    ] = False,
    trust: Trust = None,
) -> None:
    """Prune the network of a recipe (network.run=runs/x starts from a trained one), recover, measure and save."""
    from hardy.commands import prune as command

    goals = {"ratio": ratio, "target_ms": target_ms, "target_gmacs": target_gmacs}
    given = any(goal is not None for goal in goals.values())
    own = [f"prune.{name}={'null' if goal is None else goal}" for name, goal in goals.items() if given]
    (command.sensitivity if sensitivity else command.run)(_recipe(recipe, [*own, *(overrides or ())]))


@app.command()
def search(recipe: RecipeFile, overrides: Overrides = None, trust: Trust = None) -> None:
    """Search for a fasterseg architecture within a budget of milliseconds on this machine. Resumes a stopped search."""
    from hardy.commands import search as command

    command.run(_recipe(recipe, overrides))


@app.command()
def evaluate(
    run: RunFolder,
    domains: DomainsAdapting,
    *,
    root: Root = None,
    size: SizeText = None,
    split: Annotated[list[str] | None, typer.Option(help="Measure this split only; repeat for several.")] = None,
    dataset: DatasetOptions = None,
    window: SizeText = None,
    flip: Annotated[bool, typer.Option(help="Average with the horizontally flipped image.")] = False,
    scale: Annotated[list[float] | None, typer.Option(help="Average over these image scales.")] = None,
    per_class: Annotated[bool, typer.Option(help="Print the IoU of every class.")] = False,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Show this class's IoU beside the mIoU.")] = None,
    counts: Annotated[Path | None, typer.Option(help="Folder for the confusion counts of every image.")] = None,
    worst: Annotated[
        int, typer.Option(min=0, max=20, help="Keep this many worst images of each domain, for hardy report.")
    ] = 0,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Measure a network on domains: mIoU of each, their mean and the worst."""
    from hardy.commands import evaluate as command

    command.run(
        run,
        domains,
        root=root,
        splits=tuple(split or ()),
        size=size_of(size),
        datasets=nested(dataset),
        window=size_of(window),
        flip=flip,
        scales=tuple(scale or (1.0,)),
        per_class=per_class,
        device=device,
        classes=tuple(class_ or ()),
        counts=counts,
        worst=worst,
    )


app.command()(predict)


@app.command()
def bench(
    run: Annotated[Path, typer.Argument(help="A run's folder; or 'blocks', for the cost of every block.")],
    against: Annotated[Path | None, typer.Option(help="A second run, measured in turns with the first.")] = None,
    size: SizeText = "512x1024",
    batch: Annotated[list[int] | None, typer.Option(help="Images at a time; repeat for several.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="eager, onnxruntime, openvino; repeat.", autocompletion=completion.among("runtime")),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    runs: Annotated[int, typer.Option(help="Timed runs after the warm-up.")] = 30,
    channels: Annotated[int | None, typer.Option(min=32, help="For blocks: channels in and out (256).")] = None,
    *,
    fold: Annotated[bool, typer.Option("--fold", help="Also time it with folded batch norms.")] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Also time it in that layout; eager only.")
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(help="bfloat16: also time it in this type; eager only.", autocompletion=completion.among("dtype")),
    ] = "float32",
    device: Device = "cpu",
    trust: Trust = None,
) -> None:
    """Measure milliseconds (p50, p95) and memory on this machine."""
    from hardy.commands import bench as command

    others = fold, channels_last, dtype != "float32", against, batch, runtime
    command.check(blocks=str(run) == "blocks", channels=channels, others=any(others))
    if str(run) == "blocks":
        measured = size_of(size) or (512, 1024)
        command.blocks(size=measured, channels=channels or 256, threads=threads, runs=runs, device=device)
        return
    both = ("eager",) if channels_last or dtype != "float32" else ("eager", "onnxruntime")
    command.run(
        run,
        against=against,
        size=size_of(size) or (512, 1024),
        batches=tuple(batch or (1,)),
        runtimes=tuple(runtime or both),
        threads=threads,
        runs=runs,
        device=device,
        fold=fold,
        channels_last=channels_last,
        dtype=dtype,
    )


@app.command()
def export(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    domains: Annotated[
        list[str] | None, typer.Argument(help="Domains whose images prove the file.", callback=typed)
    ] = None,
    *,
    size: SizeText = "512x1024",
    dynamic: Annotated[bool, typer.Option(help="Let height and width vary.")] = False,
    logits: Annotated[bool, typer.Option(help="Logits instead of uint8 class ids.")] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Images of each domain that prove the file (20).")] = None,
    upsample: UpsampleText = "full",
    merge: Annotated[bool, typer.Option("--merge", help="Merge the network's tuner into its weights first.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Also prove the file in OpenVINO.")] = False,
    statistics: StatisticsText = "fixed",
    prototypes: Annotated[
        list[str] | None,
        typer.Option(help="A domain whose statistics are saved beside the file; repeat.", callback=typed),
    ] = None,
    root: Root = None,
    dataset: DatasetOptions = None,
    trust: Trust = None,
) -> None:
    """Export to ONNX and prove in onnxruntime that the file is equal; if the proof fails, no file is written."""
    from hardy.commands import export as command

    command.run(
        run,
        file,
        domains or [],
        size=size_of(size) or (512, 1024),
        dynamic=dynamic,
        logits=logits,
        images=images,
        upsample=upsample,
        merge=merge,
        root=root,
        datasets=nested(dataset) or None,
        openvino=openvino,
        statistics=statistics,
        prototypes=prototypes or (),
    )


app.command()(fold)
app.command()(quantize)
app.command()(push)
app.command()(pull)


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="network, criterion, dataset, ...", autocompletion=completion.kinds)
    ] = None,
) -> None:
    """List every method: what it does, where it comes from, its options and their defaults."""
    from hardy.commands import list as command

    command.run(kind)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study (YAML): stages, a grid of values, a table.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="study.gpus=0.5 and the like; optim.steps=100 for all its recipes.", callback=typed),
    ] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster: auto or HOST:PORT (else this machine).")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells at a time (else as many as fit).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these cells: seed=0,1 or stage=dense; repeat.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and their states; run none.")] = False,
    trust: Trust = None,
) -> int:
    """Run a grid of recipes in parallel, or resume it, and show one table. Exit code 1 if a cell failed."""
    from hardy.commands import study as command

    return command.run(
        file, overrides or (), address=address, jobs=jobs, only=only or (), dry_run=dry_run, trust=trust or ()
    )


app.command()(runs)
app.command()(report)
app.command("app")(look)


@app.command()
def init(
    data: Annotated[Path | None, typer.Argument(help="A folder of data; without it, an example.")] = None,
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
) -> None:
    """Write a commented recipe for a folder of data, and the JSON schema that editors use to complete recipes."""
    from hardy.commands import init as command

    command.run(data, to)


@app.command("import")
def import_(
    weights: Annotated[Path, typer.Argument(help="A published state dict.")],
    to: Annotated[Path, typer.Option(help="Folder for the run.")],
    classes: Annotated[str, typer.Option(help="Label space: cityscapes19, camvid11, or a classes.yaml.")],
    network: Annotated[str | None, typer.Option(help="The network that the weights must fit.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="A publication (else found by tensor names).")] = None,
) -> None:
    """Turn published weights into a run for every other verb; report which tensors were used and dropped."""
    from hardy.commands import import_weights as command

    command.run(weights, classes=classes, to=to, network=network, source=source)


@app.command()
def doctor(
    root: Root = None,
    test: Annotated[bool, typer.Option(help="Train, prune, measure, save and export the smallest network.")] = True,
) -> int:
    """Show versions, device, threads and data sets, and test in ten seconds that everything works."""
    from hardy.commands import doctor as command

    return command.run(root, test=test)


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Argument(help="Folder for the runs (runs/demo).")] = None,
    data: Annotated[Path | None, typer.Option(help="Real images instead of drawn streets: a folder of data.")] = None,
) -> None:
    """Demonstrate the workflow: train, prune three ways, measure unseen domains, export, report."""
    from hardy.commands import demo as command

    command.run(folder or Path("runs/demo-data" if data else "runs/demo"), data)


@kept_memory()
def main() -> None:
    """Run the command line. Bad input prints one line and exits with 2; a stopped run exits with 128 + its signal."""
    stop_with_parent()
    with from_file():  # names that the user typed are allowed when they are parsed
        leave(_call, debug="--debug" in sys.argv)


def _call() -> object:
    given = [word for word in at_home(sys.argv[1:]) if word != "--debug"]
    words = [word for word in given if word != "--json"]
    if words == given or not words or {"--help", "--version"} & {*words}:
        return app(args=words, standalone_mode=False)
    if own_json(app, words):
        end = words.index("--") if "--" in words else len(words)
        return app(args=[*words[:end], "--json", *words[end:]], standalone_mode=False)
    code, text = as_json(lambda: app(args=words, standalone_mode=False))
    print(text)
    return code


def _recipe(file: Path, overrides: list[str] | None) -> "Recipe":
    from hardy import recipe

    return recipe.read(file, overrides or ())
