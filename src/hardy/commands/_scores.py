"""What a table of scores says: the numbers to record, and the error at the end where a domain is not in it."""

from pathlib import Path

from hardy.engine.evaluate import Table
from hardy.errors import InputError

__all__ = ["refuse_unmeasured", "table_values"]


def refuse_unmeasured(table: Table, folder: Path) -> None:
    """Say by an error that ``table`` lacks domains, once everything else is done.

    Raises:
        InputError: naming them, the first one's reason, and what measures them.
    """
    if table.failed:
        names, reason = " ".join(table.failed), next(iter(table.failed.values()))
        raise InputError(
            f"{folder}: the network is there, but not measured on {names}: {reason}; once the data are right, run: "
            f"hardy evaluate {folder} {names}"
        )


def table_values(table: Table) -> list[tuple[str, str, float]]:
    """(target, metric, value) of every number in ``table``."""
    metric = "accuracy" if table.image_level else "miou"
    values = []
    for row in table.rows:
        values.append((row.domain, metric, table.headline(row)))
        if not table.image_level:
            values.append((row.domain, "pixel_accuracy", row.scores.pixel_accuracy))
            values += [(row.domain, name, value) for name, value in table.means(row).items()]
            values += [(row.domain, f"iou/{name}", v) for name, v in zip(table.classes, row.scores.iou, strict=True)]
    return values + [(name, metric, value) for name, value in table.summary().items()]
