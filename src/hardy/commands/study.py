"""``hardy study``: run a grid of recipes in parallel on Ray, resume unfinished cells, and show one table."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from hardy import counts
from hardy.commands.output.board import Board
from hardy.commands.output.comparison import refuse
from hardy.report.pivot import coordinates
from hardy.studies import cluster
from hardy.studies.cells import filters, make_cells
from hardy.studies.cluster import Job, Left
from hardy.studies.ledger import Failure, Ledger
from hardy.studies.order import Order
from hardy.studies.study import Study, read
from hardy.trust import from_file, names_typed

__all__ = ["run"]


def run(
    file: Path,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    jobs: int | None = None,
    only: Sequence[str] = (),
    dry_run: bool = False,
    trust: Sequence[str] = (),
) -> int:
    """Run the cells of the study in ``file`` that are not done, and show its table; return 1 if a cell failed, else 0.

    Args:
        file: a study (YAML).
        overrides: ``key=value`` for the study's own keys or for the recipes of all its stages.
        address: the address of a Ray cluster, such as ``auto`` or ``head:6379``; without it Ray starts on this machine.
        jobs: how many cells run at the same time; without it as many as fit on the cores and GPUs.
        only: ``axis=value`` filters.
        dry_run: show the cells and their states, and run none.
        trust: modules whose code may run if a recipe names it.

    Raises:
        InputError: for a study, a recipe of a cell or an address that cannot be used, or if Ray is missing.
        StoppedStudy: after Ctrl-C or SIGTERM, after the running cells have written their checkpoints.
    """
    study, others = read(file, overrides)
    typed = names_typed(overrides)
    with from_file([*trust, *typed]):
        cells = make_cells(study, file, others)
    read_by = {domain for one in cells.cells for domain in (*one.recipe.data.sources, *one.recipe.data.unseen)}
    refuse(study, [coordinates(one.stage, one.axes) for one in cells.cells], sorted(read_by), str(file))
    ledger = Ledger(Path(study.study.folder), file.stem, cells.cells)
    after = {cell.name: cell.after for cell in cells.chosen(study.only, filters(only))}
    order = Order(after, ledger.done(after))
    board = Board(study, ledger, order, lambda cell: _counts(ledger.run_folder(cell)))
    if dry_run:
        board.show_cells()
        return 0
    with ledger.alone() as going:
        ledger.tidy(order.named("done"))
        ledger.gather(order.named("done"))
        _start(study, ledger, order, board, going, address, jobs, [*trust, *sorted(typed)])
        board.summary()
    return 1 if order.count("failed") else 0


def _counts(folder: Path) -> dict[str, counts.Counts]:
    """The per-image counts that the run in ``folder`` kept; empty if it kept none."""
    return counts.read(folder) if (folder / counts.FILE).exists() else {}


def _start(
    study: Study,
    ledger: Ledger,
    order: Order,
    board: Board,
    going: Path,
    address: str | None,
    jobs: int | None,
    trust: Sequence[str],
) -> None:
    """Run the cells that are not done, if there are any."""
    if not any(order.ready()):
        return
    settings = study.study

    def ended(name: str, left: Left, code: int, reason: str) -> None:
        if left == "done":
            ledger.gather([name])
        elif left == "failed":
            ledger.failed(Failure(name, reason, code, str(ledger.log(name))))
        if settings.keep == "records":
            ledger.drop()
        board.ended(name, left, reason)

    trusted = [word for name in trust for word in ("--trust", name)]
    words = {
        name: Job((ledger.cells[name].verb, str(ledger.recipe_file(name).absolute()), *trusted), ledger.log(name))
        for name in order.states
    }
    with cluster.cluster(address, ceil(jobs * settings.cpus) if jobs else None) as ray:
        resources = ray.cluster_resources()
        one = cluster.share(settings.cpus, settings.gpus, resources)
        limit = min(jobs, cluster.slots(one, resources)) if jobs and address is None else jobs
        with board.live():
            cluster.run(
                ray, words, order, one, limit=limit, going=going, starts=ledger.prepare, ended=ended, tick=board.show
            )
