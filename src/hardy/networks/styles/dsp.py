"""Encoders of a style perturbation, and its artefact: ``style.safetensors`` and ``style.json``, no pickle.

An encoder is either VGG-19 up to ``relu4_1`` with weights from a file, or the first layers of a Hardy network: a frozen
copy without the modules after the last map. The artefact includes the encoder, so it does not need the network's run or
the weights file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from hardy import __version__
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.files import expanded, write_together
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD, Network
from hardy.networks.building.create import rebuild
from hardy.networks.building.weights import fill, read_weights
from hardy.networks.styles.first_layers import FirstLayers
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.ops.tensors import decoded, load_strictly, not_finite
from hardy.ops.vgg import VGG19
from hardy.seed import seeded
from hardy.stored import contents, intact, is_integer, read_json, sealed
from hardy.trust import from_file

__all__ = ["FORMAT", "first_layers", "load_dsp", "load_vgg", "save_dsp"]

FORMAT = "hardy-style/1"
_VGG = "vgg19"


def load_vgg(file: Path | str) -> VGG19:
    """VGG-19 up to ``relu4_1``, frozen, with the weights in ``file``.

    Args:
        file: the public ``vgg_normalised`` state dict (numbered layers, a 1x1 convolution first), to which the paper's
            loss weights belong; or torchvision's ``vgg19`` (``features.N``), whose maps have a larger scale and whose
            images are normalised by ImageNet's mean and standard deviation.

    Raises:
        InputError: if the file cannot be read or is of another network.
    """
    vgg, weights = VGG19(), read_weights(file)
    if any(name.startswith("features.") for name in weights):
        weights = _numbered(weights, vgg)
    own = vgg.state_dict()
    fill(vgg, {name: value for name, value in weights.items() if name in own}, str(file))
    return vgg.requires_grad_(False)


def _numbered(weights: Mapping[str, Tensor], vgg: VGG19) -> dict[str, Tensor]:
    """torchvision's weights with the layer numbers of ``vgg``, whose first layer normalises the colours."""
    deviation = torch.tensor(IMAGENET_STD)
    found = {"0.weight": (1 / deviation).diag()[..., None, None], "0.bias": -torch.tensor(IMAGENET_MEAN) / deviation}
    theirs = sorted({int(name.split(".")[1]) for name in weights if name.startswith("features.")})
    ours = [number for number, layer in enumerate(vgg) if isinstance(layer, nn.Conv2d)][1:]
    for number, place in zip(ours, theirs, strict=False):
        for part in ("weight", "bias"):
            if f"features.{place}.{part}" in weights:
                found[f"{number}.{part}"] = weights[f"features.{place}.{part}"]
    return found


def first_layers(network: Network, stride: int) -> FirstLayers:
    """The first layers of ``network`` as an encoder that `save_dsp` can write.

    Raises:
        InputError: for a network that cannot be rebuilt from its description, is pruned or tuned, or has no map at
            ``stride``.
    """
    if not network.architecture or network.architecture["options"].get("factory", "") is None:
        raise InputError(
            f"StyleVAE: this {type(network).__name__} cannot be built again, so its first layers cannot be "
            "saved; use hardy.create, wrap it with a factory, or give a file of VGG-19 weights as encoder"
        )
    if network.changes:
        raise InputError("StyleVAE: this network is pruned or tuned; use the dense run that it was made from")
    return FirstLayers(network, stride)


def save_dsp(dsp: Perturbation, folder: Path | str) -> Path:
    """Write ``dsp`` to ``folder``, both files or neither, and return the folder; the JSON contains the checksum."""
    folder, encoder = expanded(folder), dsp.encoder
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in dsp.state_dict().items()}
    data = save_tensors(tensors, {"format": FORMAT})
    origin: dict[str, Any] = {"kind": _VGG}
    if isinstance(encoder, FirstLayers):
        network = encoder.network
        origin = {
            "kind": "network",
            "architecture": network.architecture,
            "labels": network.label_space.to_json(),
            "stride": encoder.stride,
        }
    checksum = hashlib.sha256(data).hexdigest()
    description = sealed({"format": FORMAT, "hardy": __version__, "encoder": origin, "sha256": checksum})
    text = json.dumps(description, indent=1) + "\n"
    write_together({folder / "style.safetensors": data, folder / "style.json": text.encode()})
    return folder


def load_dsp(folder: Path | str) -> Perturbation:
    """The style perturbation that a run of the algorithm ``style_vae`` saved in ``folder``: frozen, on the CPU.

    Raises:
        InputError: if the folder has none, or one that is damaged, has another version, or names code that is not
            trusted.
    """
    folder = expanded(folder)
    if not (folder / "style.json").is_file():
        raise InputError(
            f"{folder}: no style.json here, so this is not a finished run of style_vae; train one with "
            "algorithm: {name: style_vae} and give its run.folder"
        )
    try:
        description = read_json(folder / "style.json")
        version, origin, expected = (description[key] for key in ("format", "encoder", "sha256"))
        data = contents(folder / "style.safetensors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: its style perturbation cannot be read ({reason}); train it again") from None
    if version != FORMAT:
        raise InputError(f"{folder}/style.json: format {version!r}, but this Hardy reads {FORMAT!r}; train it again")
    if hashlib.sha256(data).hexdigest() != expected or not intact(description):
        raise InputError(f"{folder}: style.safetensors does not match style.json (torn write?); train it again")
    try:
        with (
            seeded(0, "style"),
            from_file(),
        ):  # the caller's random state does not change
            dsp = _empty(origin, len(data))
        load_strictly(dsp, decoded(data))
        if bad := not_finite(dsp.state_dict()):
            raise ValueError(f"{bad} holds NaN or infinity")
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: its style perturbation cannot be built again ({reason}); train it again") from None
    return dsp


def _empty(origin: Mapping[str, Any], size: int) -> Perturbation:
    """The modules that `load_dsp` fills."""
    encoder: VGG19 | FirstLayers
    if origin["kind"] == _VGG:
        encoder = VGG19()
    else:
        if not is_integer(origin["stride"], 1):
            raise InputError(f"stride is {origin['stride']!r}; it must be a whole number of 1 or more")
        network = rebuild(origin["architecture"], LabelSpace.from_json(origin["labels"]), size=size)
        encoder = FirstLayers(network, origin["stride"])
    width = encoder.channels
    decoder = mirror(width, encoder.stride)
    return Perturbation(encoder, DVAE(width).decoder, decoder, torch.zeros(width), torch.eye(width))
