"""Which weights of a training run are measured and kept: the best, or the last; averaged ones if there are any."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from hardy.algorithms.base import Algorithm
from hardy.engine.checkpoint import load_tensors, write_tensors
from hardy.engine.evaluate import ScoreTable
from hardy.engine.fit import Fit
from hardy.engine.judges import warn_of
from hardy.engine.sharding import gathered, unsharded_rest
from hardy.networks.base import Network

__all__ = ["keep_best", "scored", "select"]


def keep_best(loop: Fit, file: Path, header: Mapping[str, str]) -> None:
    """Write those of the weights to keep that training changes to ``file``; all processes must call it together."""
    own = _selected(loop, whole=False)
    best = gathered({name: value for name, value in own.items() if f"network.{name}" not in loop.untrained})
    if loop.accelerator.is_main_process:
        write_tensors(file, best, header)


def select(algorithm: Algorithm, loop: Fit, best: Path) -> None:
    """Load the best weights into the network of ``algorithm``, in place and on the CPU; the last weights when none was
    measured."""
    loop.accelerator.wait_for_everyone()
    network = algorithm.network.to("cpu")
    if loop.sharded:
        algorithm.load_state_dict(gathered(loop.algorithm.state_dict()))
    for peer in algorithm.peers().values():
        prefix = next(f"{name}." for name, module in algorithm.named_modules() if module is peer)
        peer.load_state_dict(_selected(loop, prefix))
        peer.to("cpu")
    if loop.progress.best:
        rest = {name: value for name, value in network.state_dict().items() if f"network.{name}" in loop.untrained}
        load_tensors(best, network, rest)
    else:
        network.load_state_dict(_selected(loop))
    loop.accelerator.wait_for_everyone()  # the main process removes the file once all have read it


def scored(loop: Fit, judge: Callable[[Network], ScoreTable], name: str | None) -> float | None:
    """The intra-domain mean, as ``judge`` measures it, of the weights to keep, the moving average if there is one.

    It is that of the IoU of class ``name`` if given; None when nothing could be measured. The log names the domains
    that could not be read.
    """
    network = loop.algorithm.network
    live = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(_selected(loop, whole=False))
    with unsharded_rest(loop.model):
        table = judge(network)
    network.load_state_dict(live)
    warn_of(table, f"{loop.stage} step {loop.progress.step}", name)
    return table.intra_of(name)


def _selected(loop: Fit, prefix: str = "network.", *, whole: bool = True) -> dict[str, Tensor]:
    """The weights of the network at ``prefix`` of the algorithm, to measure and keep; ``whole``, or as the processes
    of a sharded run share them."""
    state = loop.averaged()
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return gathered(own) if whole else own
