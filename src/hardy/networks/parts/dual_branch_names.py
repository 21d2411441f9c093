"""The layer names that the published DDRNets and PIDNets share (branches, pooling, heads), and Hardy's names."""

__all__ = ["BACKBONE", "LOSSES", "POOLING", "head"]

_BLOCK = r"(?:conv[123]|bn[123]|downsample\.[01])"
BACKBONE = {
    r"(conv1\.[0134])": r"backbone.\1",
    rf"(layer[1-5]_?\.\d\.{_BLOCK})": r"backbone.\1",
    r"(compression[34]\.[01])": r"backbone.\1",
}
"""The stem, the stages of both branches and the compression layers between them."""

_UNIT = {0: 0, 2: 2}
POOLING = {
    **{rf"spp\.scale0\.{place}": f"pyramid.narrow.{place}" for place in _UNIT},
    **{rf"spp\.scale{n}\.{place + 1}": f"pyramid.scales.{n - 1}.{place}" for n in (1, 2, 3, 4) for place in _UNIT},
    **{rf"spp\.process{n}\.{place}": f"pyramid.refine.{n - 1}.{place}" for n in (1, 2, 3, 4) for place in _UNIT},
    r"spp\.scale_process\.([02])": r"pyramid.refine.\1",
    r"spp\.compression\.([02])": r"pyramid.join.\1",
    r"spp\.shortcut\.([02])": r"pyramid.shortcut.\1",
}
"""Pooling over windows: the published scales start with the average, so norm and convolution have one index more."""

LOSSES = {r"(loss|sem_loss|bd_loss)\..*": "a weight of the training loss"}


def head(published: str, ours: str) -> dict[str, str]:
    """A 3x3 convolution and a classifier, each after a norm."""
    places = {"bn1": "0.0", "conv1": "0.2", "bn2": "1.0", "conv2": "1.2"}
    return {rf"{published}\.{old}": f"{ours}.{new}" for old, new in places.items()}
