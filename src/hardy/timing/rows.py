"""The results of a measurement: a row per network, form, runtime and batch size, and the comparison of two networks."""

from dataclasses import asdict, dataclass
from typing import Any

from hardy.deployment.forms import AS_IT_IS
from hardy.timing.clock import Runtime

__all__ = ["Comparison", "Row"]


@dataclass(frozen=True)
class Row:
    """One measurement; times in milliseconds per batch.

    Attributes:
        network: ``network`` or ``against``, by the argument of `hardy.timing.bench.bench`.
        runtime: ``eager``, ``onnxruntime`` or ``openvino``.
        device: of the measurement.
        batch: images at once.
        size: (height, width).
        threads: threads of one operation.
        p50, p95, least: median, 95th percentile and minimum over the runs.
        ratio: of this row's time to that of ``against``, the median over the pairs of runs; None without another row.
        memory: peak in MiB, None where it cannot be read. See `hardy.timing.memory` for what is counted.
        memory_of: ``tensors`` (eager) or ``process`` (onnxruntime); the two are not comparable.
        runs, warm_up: the number of timed runs, and of runs before them.
        precision: of weights and activations.
        form: changes to the network before timing, such as ``folded, bfloat16``; ``as it is`` without any.
        against: the row that ``ratio`` compares with: for a changed form the same network as it is, else the other
            network as it is, else the other form; None without another row.
        folding: how many batch norms were folded, as in ``43 of 55 batch norms folded``; empty without folding.
        notes: the effect of folding and precision on the classes, a line each.
        folded: whether every batch norm was folded into a convolution in the network or graph that ran.
        resize: whether upsampling to the size of the images is timed; an image-level network has none.
        argmax: whether argmax to uint8 classes is timed.
        copies: whether copies to and from the device are timed; they never are.
        layout: of images and weights, ``channels first`` or ``channels last``.
    """

    network: str
    runtime: Runtime
    device: str
    batch: int
    size: tuple[int, int]
    threads: int
    p50: float
    p95: float
    least: float
    ratio: float | None
    memory: float | None
    memory_of: str
    runs: int
    warm_up: int
    precision: str
    folded: bool
    resize: bool
    argmax: bool
    copies: bool
    form: str = AS_IT_IS
    against: str | None = None
    folding: str = ""
    notes: tuple[str, ...] = ()
    layout: str = "channels first"

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    @property
    def timed(self) -> str:
        """The timed region in words: what is inside and what is not."""
        parts = {"normalisation": True, "network": True, "upsampling": self.resize, "argmax": self.argmax}
        inside = ", ".join(name for name, there in parts.items() if there)
        folding = "batch norm folded" if self.folded else self.folding or "batch norm not folded"
        last = f", {self.layout}" if self.layout != "channels first" else ""
        what = f"{self.precision}, {folding}{last}"
        return f"timed: {inside} ({what}); not timed: reading, image resize, copies to the device"


@dataclass(frozen=True)
class Comparison:
    """Two networks timed in turns; times in milliseconds per image.

    Attributes:
        before_p50, before_p95, after_p50, after_p95: median and 95th percentile of the two networks.
        ratio: median over the pairs of after / before.
        low, high: the quartiles of these ratios.
        runtime, size, threads, runs: how it was measured.
    """

    before_p50: float
    before_p95: float
    after_p50: float
    after_p95: float
    ratio: float
    low: float
    high: float
    runtime: Runtime
    size: tuple[int, int]
    threads: int
    runs: int

    @property
    def faster(self) -> bool:
        """Whether ``after`` is clearly faster: it won at least three quarters of the pairs."""
        return self.high < 1

    def to_json(self) -> dict[str, Any]:
        """The fields and the verdict as plain values."""
        return {**asdict(self), "faster": self.faster}

    def __str__(self) -> str:
        """One line, with the verdict in plain words."""
        verdict = "faster" if self.faster else "slower" if self.low > 1 else "NOT faster"
        return (
            f"{self.before_p50:.1f} -> {self.after_p50:.1f} ms p50, {self.before_p95:.1f} -> {self.after_p95:.1f} ms "
            f"p95, ratio {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]: {verdict} ({self.runtime}, "
            f"{self.size[0]}x{self.size[1]}, {self.threads} threads)"
        )
