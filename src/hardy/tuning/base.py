"""The interface of parameter-efficient tuning: a network keeps most of its weights, and a few are trained."""

from abc import ABC, abstractmethod

from torch import nn

from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["Tuner", "freeze_encoder"]


class Tuner(ABC):
    """A way to train few weights of a network.

    A subclass writes `attach`, and `merge` where what it inserted can become part of the weights it stands beside. Its
    constructor takes its options after the ``*`` and nothing before. An object of it keeps nothing of a network: one
    that is made again with the same options does the same, so a file needs the name and the options alone.

    Contract, held by ``tests/contracts/test_tuners.py`` for every method: what is not among `trained` has the same bits
    after training; what is inserted are modules, not hooks, so copies, `torch.export`, saving and pruning work; the
    form of the network after `attach` follows from its form before and from the options, not from any weight; `merge`
    changes no logit by more than 1e-5 of the largest.
    """

    @abstractmethod
    def attach(self, network: Network) -> None:
        """Freeze and insert, in place.

        What is frozen gets ``requires_grad`` False; modules whose statistics rest too are named in ``network.resting``.
        What is inserted is drawn from torch's generator.

        Raises:
            InputError: for a network that the method does not suit; nothing was changed then.
        """

    def trained(self, network: Network) -> frozenset[str]:
        """The names of the entries of ``network.state_dict()`` that training changes: the parameters that have
        gradients, and the buffers outside ``network.resting``.

        Args:
            network: one that the method is attached to, pruned or not.
        """
        resting = {module for name in network.resting for module in network.get_submodule(name).modules()}
        owners = dict(network.named_modules())
        return frozenset(
            name
            for name, value in network.state_dict(keep_vars=True).items()
            if (
                value.requires_grad
                if isinstance(value, nn.Parameter)
                else owners[name.rpartition(".")[0]] not in resting
            )
        )

    def merge(self, network: Network) -> None:
        """Put what was inserted into the weights beside it, in place, so that the network has its first form.

        Raises:
            InputError: when that cannot be exact; nothing was changed then.
        """
        raise InputError(f"tuner: what {type(self).__name__} inserts cannot be merged into the weights of a network")


def freeze_encoder(network: Network) -> None:
    """Freeze the encoder of ``network``, in place: no gradients, and all of it stays in evaluation mode.

    Raises:
        InputError: for a network that has none.
    """
    modules = list(network.encoder())
    if not modules:
        raise InputError(
            f"tuner: {type(network).__name__} names no encoder (Network.encoder), so none can be frozen; take a "
            "network with an encoder, such as encoder_decoder"
        )
    for module in modules:
        module.requires_grad_(False)
    names = {module: name for name, module in network.named_modules()}
    network.resting = (*network.resting, *(names[module] for module in modules))
    network.train(network.training)
