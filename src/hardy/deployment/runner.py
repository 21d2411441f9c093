"""Runs an exported file whose batch-norm statistics are inputs: switches, mixes and updates domains.

This one file needs numpy and onnxruntime only, so it can be copied onto a device. The table of prototypes is beside
``net.onnx``, in ``net.prototypes.safetensors``: for the ``source`` and for every domain the statistics (2, N), which
are the means and biased variances of all N channels of the batch norms. See `hardy.deployment.statistics` for the
graphs.

    runner = Runner("net.onnx")
    runner.use("streets/night")                                 # or {"streets/night": 0.7, "streets/fog": 0.3}
    classes = runner(images)                                    # (B, 3, H, W) float32 RGB in [0, 1]

Mixed statistics are the weighted means of means and of variances. With a file of observed statistics `Runner.adapt` is
the step of ``bn_domains``: for a domain's batch that moves its prototype P to the batch's statistics b,

    P <- (1 - w) P + w b,    w = 1 / (prior + t) for the domain's move t up to 100, then the momentum

and the batch is normalised by the new P. After 10 batches of a domain only every n-th moves it.

Source: Reddy, Baktashmotlagh and Arora, "Towards domain-aware knowledge distillation for continual model
generalization", WACV 2024 (the prototypes); Hardy's own (the graph).
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SOURCE", "PrototypeTable", "Runner", "constant", "read_table", "table_beside", "write_table"]

SOURCE = "source"
"""The name of the statistics with which the network was saved."""

FORMAT = "hardy-prototypes/1"
FIRST, WARM_UP = 10, 100
"""How many first batches of a domain all move its prototype, and how many have equal weights."""

_HEADER, _FILE, _DOMAINS, _NAME = 2**20, 2**28, 4096, 256
"""The largest header and table in bytes, the most domains, and the longest name in bytes."""


@dataclass(frozen=True)
class PrototypeTable:
    """Prototypes by domain.

    Attributes:
        norms: the names of the batch norms with their channels, in the order of the statistics.
        rows: for each domain, ``source`` among them, (2, N) float32.
        counts: for each domain how many batches its prototype counts for.

    Raises:
        ValueError: for names, shapes or values that are no prototypes.
    """

    norms: dict[str, int]
    rows: dict[str, np.ndarray]
    counts: dict[str, int]

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains, without ``source``."""
        return tuple(name for name in self.rows if name != SOURCE)

    def __post_init__(self) -> None:
        if not (self.norms and all(_whole(channels, 1) for channels in self.norms.values())):
            raise ValueError("it names no batch norms with their channels")
        if SOURCE not in self.rows or len(self.rows) > _DOMAINS or set(self.rows) != set(self.counts):
            raise ValueError(f"it has no row 'source', more than {_DOMAINS} rows, or rows without a count")
        shape = (2, sum(self.norms.values()))
        for name, row in self.rows.items():
            _check_name(name)
            if row.shape != shape or row.dtype != np.float32 or not _whole(self.counts[name], 0):
                raise ValueError(
                    f"{name}: {row.dtype} {row.shape}, count {self.counts[name]}; float32 {shape} is needed"
                )
            if not (np.isfinite(row).all() and (row[1] >= 0).all()):
                raise ValueError(f"{name}: a mean or variance is not finite, or a variance is below 0")


class Runner:
    """An exported file with statistics as inputs. At the start it uses the ``source`` statistics.

    Args:
        file: written by ``hardy export --statistics inputs`` or ``observed``.
        table: its prototypes; by default the table beside it.
        observed: the same network exported with ``observed``, used only for the batches that `adapt` learns from, since
            it is slower. By default ``file``, if it is of that kind.
        momentum, every, prior: the options of ``bn_domains``, for `adapt`.
        threads: threads of an operation; 0 for onnxruntime's choice.

    Raises:
        ValueError: in one line, for a file or a table that is missing, damaged, or of another network.
    """

    def __init__(
        self,
        file: Path | str,
        table: Path | str | None = None,
        *,
        observed: Path | str | None = None,
        momentum: float = 0.01,
        every: int = 10,
        prior: float = 0.0,
        threads: int = 0,
    ) -> None:
        if not (0 < momentum <= 1 and every >= 1 and 0 <= prior < math.inf):
            raise ValueError(f"momentum {momentum}, every {every} or prior {prior}: give (0, 1], 1 or more, 0 or more")
        self._file, self._threads = Path(file), threads
        self._fed = _session(self._file, threads)
        given = read_table(table_beside(self._file) if table is None else Path(table))
        kind = _statistics_of(self._file, self._fed, given)
        self._observes = self._fed if kind == "observed" else None
        if observed is not None:
            self._observes = _session(Path(observed), threads)
            if _statistics_of(Path(observed), self._observes, given) != "observed":
                raise ValueError(f"{observed}: observes no statistics; export it with --statistics observed")
        self._momentum, self._every, self._prior = momentum, every, prior
        self._norms, self._rows, self._counts = given.norms, dict(given.rows), dict(given.counts)
        self._batches = {name: min(count, FIRST) for name, count in given.counts.items()}
        self._fused: Any = None
        self._statistics = self._rows[SOURCE]

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of all domains with statistics, ``source`` first."""
        return (SOURCE, *(name for name in self._rows if name != SOURCE))

    @property
    def statistics(self) -> np.ndarray:
        """The statistics (2, N) float32 by which the next call normalises."""
        return self._statistics.copy()

    def use(self, domains: str | Mapping[str, float], *, fuse: bool = True) -> None:
        """Normalise by the statistics of a domain, or by a mixture of several.

        Args:
            domains: a name of `domains`, or names with weights of at least 0, which are scaled to a sum of 1.
            fuse: build the graph again with these statistics as constants. This takes a fraction of a second, and then
                the file runs as fast as one without inputs. False switches immediately, but each call takes longer. A
                file of observed statistics is never fused.

        Raises:
            ValueError: for an unknown name, or weights that are negative, not finite, or all 0.
        """
        weights = {domains: 1.0} if isinstance(domains, str) else dict(domains)
        for name, weight in weights.items():
            if name not in self._rows:
                raise ValueError(f"there is no prototype of {name!r}; there are: {', '.join(self.domains)}")
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}: weight {weight}; give a number of at least 0")
        total = math.fsum(weights.values())
        if not 0 < total < math.inf:
            raise ValueError("the weights of the domains have no sum above 0")
        mixed = sum(np.float64(weight / total) * self._rows[name] for name, weight in weights.items())
        self._statistics = np.asarray(mixed, np.float32)
        fuse = fuse and self._observes is not self._fed
        self._fused = _session(constant(self._file.read_bytes(), self._statistics), self._threads) if fuse else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The classes or logits of ``images`` (B, 3, H, W) float32 RGB in [0, 1], by the statistics in use."""
        if self._fused is not None:
            return _first(self._fused.run(None, {"images": images}))
        return self._run(self._statistics, images)

    def adapt(self, images: np.ndarray, domain: str) -> np.ndarray:
        """The classes or logits of ``images`` of ``domain``, whose prototype moves; see the module. A new name begins
        at the source's statistics. It does not change the statistics that `use` chose for calls of the runner.

        Raises:
            ValueError: for a file that observes nothing, the name ``source``, or a name that is too long; for images
                whose statistics are not finite, in which case nothing changes.
        """
        if self._observes is None:
            raise ValueError(f"{self._file}: observes no statistics; export it with --statistics observed")
        _check_name(domain)
        if domain == SOURCE or (domain not in self._rows and len(self._rows) >= _DOMAINS):
            raise ValueError(f"{domain}: is not a domain that can be learned, or there are {_DOMAINS} already")
        past, count = self._rows.get(domain, self._rows[SOURCE]), self._counts.get(domain, 0)
        batch = self._batches.get(domain, 0) + 1
        if batch > FIRST and (batch - FIRST) % self._every:
            out = self._run(past, images)
        else:
            weight = 1 / (self._prior + count + 1) if count < WARM_UP else self._momentum
            fed = {"images": images, "statistics": past, "weight": np.array(weight, np.float32)}
            out, seen = self._observes.run(None, fed)
            moved = past + np.float32(weight) * (seen - past)
            if not np.isfinite(moved).all():
                raise ValueError(f"{domain}: the statistics of the images are not finite; the prototype stays")
            self._rows[domain], self._counts[domain] = moved, count + 1
        self._batches[domain] = batch
        return _first([out])

    def save(self, table: Path | str) -> None:
        """Write the prototypes as they are now to the file ``table``, atomically."""
        write_table(Path(table), PrototypeTable(self._norms, self._rows, self._counts))

    def _run(self, statistics: np.ndarray, images: np.ndarray) -> np.ndarray:
        return _first(self._fed.run(None, {"images": images, "statistics": statistics}))


def table_beside(file: Path) -> Path:
    """``net.prototypes.safetensors`` for ``net.onnx``."""
    return file.with_name(f"{file.stem}.prototypes.safetensors")


def write_table(path: Path, table: PrototypeTable) -> None:
    """Write ``table`` as a safetensors file, atomically.

    Raises:
        OSError: when it cannot be written.
    """
    data = np.stack(list(table.rows.values())).astype("<f4")
    listed = {
        "domains": list(table.rows),
        "counts": [table.counts[name] for name in table.rows],
        "norms": table.norms,
    }
    metadata = {"format": FORMAT, "table": json.dumps(listed)}
    tensor = {"dtype": "F32", "shape": list(data.shape), "data_offsets": [0, data.nbytes]}
    header = json.dumps({"__metadata__": metadata, "prototypes": tensor}).encode()
    header += b" " * (-len(header) % 8)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(len(header).to_bytes(8, "little") + header + data.tobytes())
    os.replace(part, path)


def read_table(path: Path) -> PrototypeTable:
    """The table in ``path``. Its size, its header and each of its values are checked before they are used.

    Raises:
        ValueError: in one line that names the file, if it is missing, or not a table that Hardy wrote.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        if path.stat().st_size > _FILE:
            raise ValueError(f"it has more than {_FILE // 2**20} MiB")
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        if not 2 <= length <= min(_HEADER, len(data) - 8):
            raise ValueError("its header does not fit")
        header = json.loads(data[8 : 8 + length])
        tensor, metadata = header["prototypes"], header["__metadata__"]
        if metadata["format"] != FORMAT or set(header) != {"prototypes", "__metadata__"} or tensor["dtype"] != "F32":
            raise ValueError(f"it is no {FORMAT}")
        entries = json.loads(metadata["table"])
        names, counts, norms = entries["domains"], entries["counts"], dict(entries["norms"])
        if not all(_whole(channels, 1) for channels in norms.values()):
            raise ValueError("it names no batch norms with their channels")
        shape, rest = [len(names), 2, sum(norms.values())], len(data) - 8 - length
        if tensor["shape"] != shape or rest != 4 * math.prod(shape) or tensor["data_offsets"] != [0, rest]:
            raise ValueError(f"its tensor {tensor['shape']} is not that of its names, {shape}, or not of its size")
        values = np.frombuffer(data, "<f4", offset=8 + length).reshape(shape).astype(np.float32)
        rows = dict(zip(names, values, strict=True))
        if len(rows) != len(names):
            raise ValueError("a domain has two rows")
        return PrototypeTable(norms, rows, dict(zip(names, counts, strict=True)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is not a table of prototypes ({reason}); export the network again") from None


def constant(model: bytes, statistics: np.ndarray) -> bytes:
    """The ONNX ``model`` with its input ``statistics`` replaced by a constant of that value, (2, N) float32.

    It works on protobuf's encoding: a model has its graph in field 7; a graph its initialisers in field 5 and its
    inputs in field 11; these have their names in fields 8 and 1. A tensor has its shape in field 1, its type (1 for
    float32) in field 2 and its values in field 9.
    """
    tensor = b"".join(_field(1, size) for size in statistics.shape) + _field(2, 1) + _field(8, b"statistics")
    tensor += _field(9, statistics.astype("<f4").tobytes())
    parts = []
    for number, whole, inner in _fields(model):
        if number == 7:
            kept = [one for which, one, own in _fields(inner) if _named(own, {5: 8, 11: 1}.get(which)) != b"statistics"]
            whole = _field(7, b"".join([*kept, _field(5, tensor)]))
        parts.append(whole)
    return b"".join(parts)


def _fields(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, all bytes, content) of each field of a protobuf message; numbers have no content."""
    place = 0
    while place < len(data):
        start = place
        tag, place = _varint(data, place)
        begin = place
        if tag & 7 == 0:
            begin = place = _varint(data, place)[1]
        elif tag & 7 == 2:
            length, begin = _varint(data, place)
            place = begin + length
        else:
            begin = place = place + {1: 8, 5: 4}[tag & 7]
        yield tag >> 3, data[start:place], data[begin:place]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at ``place`` and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    return _number(number << 3 | 2) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _named(message: bytes, number: int | None) -> bytes | None:
    """The name of a message that has it in field ``number``."""
    return None if number is None else next((own for which, _, own in _fields(message) if which == number), None)


def _session(model: Path | bytes, threads: int) -> Any:
    """The onnxruntime session of a file or its bytes, on the CPU."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common base class
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model if isinstance(model, Path) else 'the file'}: cannot be read ({reason})") from None


def _statistics_of(file: Path, session: Any, table: PrototypeTable) -> str:
    """Whether the statistics of ``file`` are ``inputs`` or ``observed``.

    Raises:
        ValueError: if they are neither, or ``table`` is of another network.
    """
    try:
        description = json.loads(session.get_modelmeta().custom_metadata_map["hardy"])
        kind, norms, source = description["statistics"], description["norms"], description["source"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{file}: its statistics are fixed; export it with --statistics inputs") from None
    own = hashlib.sha256(table.rows[SOURCE].tobytes()).hexdigest()
    if list(norms.items()) != list(table.norms.items()) or source != own:
        raise ValueError(f"{file}: the table of prototypes is of another network; export both again")
    return str(kind)


def _check_name(name: Any) -> None:
    """Raise `ValueError` for anything but a name of 1 to 256 bytes."""
    if not (isinstance(name, str) and 0 < len(name.encode(errors="replace")) <= _NAME):
        raise ValueError(f"domain {str(name)[:40]!r} is not a name of 1 to {_NAME} bytes")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _first(outputs: Any) -> np.ndarray:
    first: np.ndarray = outputs[0]
    return first
