"""A network changed to predict other classes: its last layers are replaced, all other weights stay.

A network of the registry is built again for the other classes and pruned by the same plan. In a wrapped module the last
layers are found by a trial: permuting the rows of a last layer permutes the logits.
"""

from collections.abc import Sequence
from copy import deepcopy

from hardy.data.label_spaces import LabelSpace
from hardy.engine.changes import replay, tuner_of
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.classes import class_axes, warn_of_new_classes, with_classes
from hardy.networks.building.create import rebuild
from hardy.networks.building.last_layer import last_layers, resize_last_layer
from hardy.networks.building.wrapped import Wrapped

__all__ = ["for_classes"]


def for_classes(network: Network, label_space: LabelSpace, *, source: str = "network") -> Network:
    """``network`` for the classes of ``label_space``, in evaluation mode; a warning says how its last layers changed.

    The weights of classes with the same name are kept; the weights of other classes are drawn at random. Pruned
    channels stay removed. With the same classes in the same order only the colours of ``network`` change.

    Args:
        network: any network that `hardy.create`, `hardy.wrap` or `hardy.load` made; its modules may be reused.
        label_space: the classes to predict.
        source: the name of the network in messages.

    Raises:
        InputError: for a network whose last layers cannot be identified.
    """
    if network.label_space.classes == label_space.classes:
        network.label_space = label_space
        return network.eval()
    made, layers = (_wrapped if isinstance(network, Wrapped) else _built)(network, label_space, source)
    warn_of_new_classes(source, network.label_space.classes, label_space, layers)
    return made.eval()


def _built(network: Network, label_space: LabelSpace, source: str) -> tuple[Network, Sequence[str]]:
    options = {**network.architecture["options"], **network.written}
    architecture = {**network.architecture, "options": options}

    def build(classes: LabelSpace) -> Network:
        built = rebuild(architecture, classes)
        if any(change["change"] != "prune" for change in network.changes):  # a tuner may rename layers
            replay(built, network.changes)
        return built

    axes = class_axes(build, len(label_space))
    made = rebuild(architecture, label_space)
    replay(made, network.changes)
    made.load_state_dict(with_classes(made, network.state_dict(), axes, network.label_space.classes, source))
    made.lineage = network.lineage
    return made, sorted(axes)


def _wrapped(network: Network, label_space: LabelSpace, source: str) -> tuple[Network, Sequence[str]]:
    assert isinstance(network, Wrapped)
    if tuner_of(network) is not None:
        raise InputError(
            f"{source}: is a wrapped module that is tuned; merge the tuner (hardy.merge) before changing the classes"
        )
    layers = last_layers(network)
    if not layers:
        raise InputError(
            f"{source}: the layers of the wrapped {type(network.module).__name__} that predict its "
            f"{len(network.label_space)} classes cannot be identified; replace them in the module, and wrap it for the "
            "other classes"
        )
    made = deepcopy(network)
    for name in layers:
        resize_last_layer(made, name, network.label_space.classes, label_space.classes)
    made.label_space, made.origin = label_space, None
    options = {**made.architecture["options"], "last": [name.removeprefix("module.") for name in layers]}
    made.architecture = {**made.architecture, "options": options}
    return made, layers
