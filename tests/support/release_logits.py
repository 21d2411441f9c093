"""Write the fixture of a publication: logits of its public code, filled and fed by the rules of `parity`.

    python tests/support/release_logits.py PUBLICATION CHECKOUT COMMIT

``CHECKOUT`` is the folder of a checkout of the public repository, which is no part of Hardy; for the two that come as
packages, the word ``package``. Modules that only other parts of that code need are replaced by empty ones. The fixture
goes to ``tests/networks/parity/PUBLICATION.json``. The command is run by hand; the tests read the fixtures alone.
"""

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from parity import image, sample, state
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.networks.building.numpy_numbers import numpy_numbers

FOLDER = Path(__file__).parents[1] / "networks" / "parity"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Outputs = dict[str, Tensor]
Release = tuple[nn.Module, Callable[[nn.Module, Tensor], Outputs], tuple[tuple[int, int], ...]]
"""A network, what it says of an RGB image in [0, 255], and the sizes of the images."""


def normalised(rgb: Tensor, mean: tuple[float, ...] = IMAGENET[0], std: tuple[float, ...] = IMAGENET[1]) -> Tensor:
    """RGB in [0, 255] -> what most releases take."""
    return (rgb / 255 - torch.tensor(mean).double().view(1, 3, 1, 1)) / torch.tensor(std).double().view(1, 3, 1, 1)


def large(x: Tensor, like: Tensor, *, align_corners: bool = False) -> Tensor:
    """``x`` at the size of the image, as the release's loops enlarge what its network returns."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=align_corners)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Modules called ``names``, and all below them, are empty stand-ins."""
    with mock.patch.dict(sys.modules, {name: mock.MagicMock(__path__=[], __spec__=None) for name in names}):
        yield


def bisenetv2(root: Path) -> Release:
    module = load(root, "lib.models.bisenetv2")
    with mock.patch.object(module.BiSeNetV2, "load_pretrain"):
        network = module.BiSeNetV2(19)
    names = ("logits", "aux_stage1", "aux_stage2", "aux_stage3", "aux_stage4")
    colours = ((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115))
    return network, lambda net, rgb: dict(zip(names, net(normalised(rgb, *colours)), strict=True)), ((64, 96), (96, 64))


def ddrnet(root: Path) -> Release:
    module = load(root / "segmentation", "DDRNet_23_slim")
    sizes = {"planes": 32, "spp_planes": 128, "head_planes": 64}
    network = module.DualResNet(module.BasicBlock, [2, 2, 2, 2], num_classes=19, augment=True, **sizes)

    def outputs(net: nn.Module, rgb: Tensor) -> Outputs:
        final, aux = net(normalised(rgb))
        return {"logits": large(final, rgb), "aux_detail": large(aux, rgb)}

    return network, outputs, ((128, 160), (136, 200))


def espnet(root: Path) -> Release:
    network = load(root / "test", "Model").ESPNet(20, 2, 3)
    mean = torch.tensor([72.3923111, 82.90893555, 73.15840149]).double().view(1, 3, 1, 1)
    std = torch.tensor([45.3192215, 46.15289307, 44.91483307]).double().view(1, 3, 1, 1)
    return network, lambda net, rgb: {"logits": net((rgb.flip(1) - mean) / std / 255)[:, :19]}, ((64, 96), (72, 56))


def fanet(root: Path) -> Release:
    models = load(root / "Train", "ptsemseg.models")
    heads: list[Tensor] = []
    with mock.patch("torch.utils.model_zoo.load_url", return_value={}):
        network = models.FANet(19, norm_layer=models.BatchNorm2d, loss_fn=lambda logits, _: heads.append(logits) or 0)

    def outputs(net: nn.Module, rgb: Tensor) -> Outputs:
        heads.clear()
        net.training = True  # of its parts none is
        net(normalised(rgb))
        return dict(zip(("logits", "aux_coarsest", "aux_coarse"), heads, strict=True))

    return network, outputs, ((128, 160), (136, 200))


def fasterseg(root: Path) -> Release:
    """The student, from the architecture file of the release."""
    with without("thop", "easydict", "utils", "utils.darts_utils"):
        sys.modules["easydict"].EasyDict = lambda: ModuleType("FasterSeg")  # type: ignore[attr-defined]
        with contextlib.chdir(root), mock.patch("os.path.realpath", return_value=f"{root.absolute()}/FasterSeg"):
            release = load(root / "train", "model_seg")
    with numpy_numbers():
        found = torch.load(root / "train" / "fasterseg" / "arch_1.pt", map_location="cpu", weights_only=True)
    kinds = [[found[f"{kind}_1_{scale}"].detach() for scale in range(3)] for kind in ("alpha", "ratio")]
    betas = [None, found["beta_1_1"].detach(), found["beta_1_2"].detach()]
    widths = [share / 12 for share in (4, 6, 8, 10, 12)]
    network = release.Network_Multi_Path_Infer(
        kinds[0], betas, kinds[1], layers=16, width_mult_list=widths, stem_head_width=(8 / 12, 8 / 12)
    )
    network.train()
    network.build_structure([2, 1])

    def outputs(net: nn.Module, rgb: Tensor) -> Outputs:
        net.training = True  # of its parts none is
        return dict(zip(("logits", "aux_stride16", "aux_stride32"), net(normalised(rgb)), strict=True))

    return network, outputs, ((128, 160), (160, 224))


def fast_scnn(root: Path) -> Release:
    network = load(root, "models.fast_scnn").FastSCNN(19, aux=True)
    return network, lambda net, rgb: dict(zip(("logits", "aux_detail"), net(normalised(rgb)), strict=True)), SIZES


def pidnet(root: Path) -> Release:
    network = load(root, "models.pidnet").PIDNet(2, 3, 19, planes=32, ppm_planes=96, head_planes=128)

    def outputs(net: nn.Module, rgb: Tensor) -> Outputs:
        found = dict(zip(("aux_detail", "logits", "boundary"), net(normalised(rgb)), strict=True))
        return {name: large(value, rgb, align_corners=True) for name, value in found.items()}

    return network, outputs, ((128, 160), (136, 200))


class _Head(nn.Module):
    """What the NVlabs head takes from the base class of a library that is no longer served."""

    def __init__(self, in_channels: list[int], num_classes: int, channels: int, **_: Any) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.conv_seg, self.dropout = nn.Conv2d(channels, num_classes, 1), nn.Identity()

    def _transform_inputs(self, inputs: list[Tensor]) -> list[Tensor]:
        return inputs


class _ConvModule(nn.Module):
    """Convolution without bias, batch norm, ReLU, as mmcv builds them for that head."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


def segformer(root: Path) -> Release:
    load(root, "timm.models.layers")  # before IPython and attr are stand-ins
    folder = root / "mmseg" / "models"
    names = ["mmseg", "mmseg.models", "mmseg.models.builder", "mmseg.models.utils", "mmseg.ops", "mmseg.utils", "attr"]
    names += ["mmcv", "mmcv.cnn", "mmcv.runner", "IPython", "mmseg.models.decode_heads", "timm.models.registry"]
    names += ["mmseg.models.decode_heads.decode_head"]
    with without(*names):
        for place in ("BACKBONES", "HEADS"):
            getattr(sys.modules["mmseg.models.builder"], place).register_module = lambda: lambda cls: cls
        sys.modules["mmseg.models.utils"].__all__ = []  # type: ignore[attr-defined]
        sys.modules["mmseg.models.decode_heads.decode_head"].BaseDecodeHead = _Head  # type: ignore[attr-defined]
        sys.modules["mmcv.cnn"].ConvModule = _ConvModule  # type: ignore[attr-defined]
        sys.modules["mmseg.ops"].resize = F.interpolate  # type: ignore[attr-defined]
        encoder = from_file("mmseg.models.backbones_mit", folder / "backbones" / "mix_transformer.py").mit_b0()
        head = from_file("mmseg.models.decode_heads.one", folder / "decode_heads" / "segformer_head.py").SegFormerHead
    widths = {"in_channels": [32, 64, 160, 256], "num_classes": 19, "channels": 128}
    network = nn.ModuleDict(
        {
            "backbone": encoder,
            "decode_head": head(feature_strides=[4, 8, 16, 32], decoder_params={"embed_dim": 256}, **widths),
        }
    )
    return network, _two_parts, ((100, 150), (128, 96))


def segformer_mmseg(root: Path) -> Release:
    with without("mmcv.ops", "mmcv._ext"):
        models = importlib.import_module("mmseg.models")
        encoder = models.MixVisionTransformer(
            embed_dims=32,
            num_heads=[1, 2, 5, 8],
            num_layers=[2, 2, 2, 2],
            sr_ratios=[8, 4, 2, 1],
            drop_path_rate=0.1,
            out_indices=(0, 1, 2, 3),
            mlp_ratio=4,
            qkv_bias=True,
        )
        head = models.SegformerHead(
            in_channels=[32, 64, 160, 256],
            in_index=[0, 1, 2, 3],
            channels=256,
            num_classes=19,
            norm_cfg={"type": "BN"},
            align_corners=False,
        )
    return nn.ModuleDict({"backbone": encoder, "decode_head": head}), _two_parts, ((100, 150), (128, 96))


def _two_parts(net: nn.Module, rgb: Tensor) -> Outputs:
    return {"logits": large(net["decode_head"](net["backbone"](normalised(rgb))), rgb)}  # type: ignore[index]


def segformer_transformers(root: Path) -> Release:
    library = importlib.import_module("transformers")
    network = library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=19))
    return network, lambda net, rgb: {"logits": large(net(normalised(rgb)).logits, rgb)}, ((100, 150), (128, 96))


def _swiftnet(root: Path, kind: str) -> nn.Module:
    with without("evaluation", "evaluation.evaluate"), contextlib.redirect_stdout(None):
        backbone = load(root, f"models.resnet.resnet_{kind}").resnet18(pretrained=False)
        network: nn.Module = load(root, "models.semseg").SemsegModel(backbone, 19, k=1)
    return network


def _in_place(net: nn.Module, rgb: Tensor) -> Outputs:
    return {"logits": net(rgb.clone(), None, rgb.shape[-2:])[0]}


def swiftnet(root: Path) -> Release:
    return _swiftnet(root, "single_scale"), _in_place, ((128, 160), (96, 224))


def swiftnet_pyramid(root: Path) -> Release:
    return _swiftnet(root, "pyramid"), _in_place, ((128, 160), (96, 224))


SIZES = ((128, 160), (96, 224))
RELEASES = {
    "bisenetv2": (bisenetv2, "CoinCheung/BiSeNet"),
    "ddrnet": (ddrnet, "ydhongHIT/DDRNet"),
    "espnet": (espnet, "sacmehta/ESPNet"),
    "fanet": (fanet, "feinanshan/FANet"),
    "fasterseg": (fasterseg, "VITA-Group/FasterSeg"),
    "fast_scnn": (fast_scnn, "Tramac/Fast-SCNN-pytorch"),
    "pidnet": (pidnet, "XuJiacong/PIDNet"),
    "segformer": (segformer, "NVlabs/SegFormer"),
    "segformer_mmseg": (segformer_mmseg, "open-mmlab/mmsegmentation"),
    "segformer_transformers": (segformer_transformers, "huggingface/transformers"),
    "swiftnet": (swiftnet, "orsic/swiftnet"),
    "swiftnet_pyramid": (swiftnet_pyramid, "orsic/swiftnet"),
}


def load(root: Path, name: str) -> Any:
    """The module ``name`` of a checkout."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(name)


def from_file(name: str, file: Path) -> ModuleType:
    """The module in ``file`` alone, without the packages around it."""
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("publication", choices=sorted(RELEASES))
    parser.add_argument("checkout", type=Path)
    parser.add_argument("commit", help="of the checkout, or the package's version")
    options = parser.parse_args()
    make, repository = RELEASES[options.publication]
    network, outputs, sizes = make(options.checkout)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    for name, value in state(shapes).items():  # one release loads names that are not its own
        network.state_dict()[name].copy_(value)
    network.double().eval()
    logits = {
        f"{height}x{width}": {
            name: [float(f"{number:.9g}") for number in sample(value)]
            for name, value in outputs(network, image(height, width)).items()
        }
        for height, width in sizes
    }
    found = {"repository": repository, "commit": options.commit, "shapes": {k: list(v) for k, v in shapes.items()}}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{options.publication}.json").write_text(json.dumps({**found, "outputs": logits}) + "\n")


if __name__ == "__main__":
    main()
