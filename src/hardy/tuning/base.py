"""The interface of parameter-efficient tuning: most weights of a network are frozen, and a few are trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = ["Tuner", "encoder_of", "freeze_encoder"]


class Tuner(ABC):
    """A parameter-efficient way to train a network.

    A subclass implements `attach`, and also `merge` if its inserted modules can be merged into the existing weights.
    Its constructor takes its options after the ``*`` and nothing before it. A tuner keeps no reference to a network:
    another object with the same options does the same, so a file stores only the name and the options.

    Contract, checked by ``tests/contracts/test_tuners.py`` for every method:

    - entries that are not `trained` keep their bits in training;
    - a tuner inserts modules, not hooks, so copying, `torch.export`, saving and pruning work;
    - the structure after `attach` depends on the structure before and on the options, not on the weights;
    - `merge` changes no logit by more than 1e-5 of the largest one.
    """

    @abstractmethod
    def attach(self, network: Network) -> None:
        """Freeze parameters and insert modules, in place.

        Frozen parameters get ``requires_grad`` False. Modules whose statistics are frozen too are listed in
        ``network.resting``. New parameters are drawn with torch's generator.

        Raises:
            InputError: for a network that the method does not support; then nothing is changed.
        """

    def attach_unfilled(self, network: Network) -> None:
        """As `attach`, for a network all of whose weights are loaded afterwards: only the structure counts."""
        self.attach(network)

    def trained(self, network: Network) -> frozenset[str]:
        """The names of the entries of ``network.state_dict()`` that training changes: the parameters with
        ``requires_grad``, and the buffers outside ``network.resting``.

        Args:
            network: a network after `attach`, pruned or not.
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

    def remembered(self, network: Network) -> frozenset[str]:
        """The names of the entries of ``network.state_dict()`` whose values before training are needed by `finish`.

        Args:
            network: a network after `attach`.
        """
        return frozenset()

    def finish(self, network: Network, start: Mapping[str, Tensor]) -> None:  # noqa: B027 - most do nothing here
        """Called once after the last training step; may change weights in place.

        Args:
            network: the network with the selected weights.
            start: the values of the `remembered` entries after `attach`, before the first step.
        """

    def merge(self, network: Network) -> None:
        """Merge the inserted modules into the original weights, in place; the network gets its original structure.

        Raises:
            InputError: if that cannot be exact; then nothing is changed.
        """
        raise InputError(
            f"tuner: the modules of {type(self).__name__} cannot be merged into the weights of a network; use the "
            "tuned network as it is, without merge"
        )


def encoder_of(network: Network) -> Sequence[nn.Module]:
    """The modules of the encoder of ``network``.

    Raises:
        InputError: for a network without an encoder.
    """
    modules = list(network.encoder())
    if not modules:
        raise InputError(
            f"tuner: {type(network).__name__} names no encoder (Network.encoder), so none can be frozen; use a "
            "network with an encoder, such as encoder_decoder"
        )
    return modules


def freeze_encoder(network: Network) -> None:
    """Freeze the encoder of ``network``, in place: its parameters get no gradients and it stays in evaluation mode.

    Raises:
        InputError: for a network without an encoder.
    """
    modules = encoder_of(network)
    for module in modules:
        module.requires_grad_(False)
    names = {module: name for name, module in network.named_modules()}
    network.resting = (*network.resting, *(names[module] for module in modules))
    network.train(network.training)
