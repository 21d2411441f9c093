import timm
import torch

from hardy.networks.building.create import create


def test_the_encoder_is_timms_resnet_before_the_last_relu_of_each_stage() -> None:
    network = create("swiftnet", "cityscapes19")
    reference = timm.create_model("resnet18", num_classes=0).eval()
    torch.manual_seed(0)
    weights = {
        name: torch.rand_like(value) + 0.5 if value.ndim == 1 else value
        for name, value in reference.state_dict().items()
    }
    reference.load_state_dict(weights)
    network.backbone.load_state_dict(weights, strict=True)
    images = torch.randn(1, 3, 97, 130)
    sums: list[torch.Tensor] = []
    for stage in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        stage[-1].act2.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0].clone()))
    reference(images)
    maps = network.backbone.eval()(images)
    assert len(maps) == len(sums) == 4
    for ours, theirs in zip(maps, sums, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
        assert (ours < 0).any()


def test_the_pooling_grid_follows_the_aspect_ratio() -> None:
    pooling = create("swiftnet", "cityscapes19").decoder.pyramid.eval()
    seen: list[tuple[int, int]] = []
    for level in pooling.levels:
        level.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    pooling(torch.rand(1, 512, 32, 64))
    assert seen == [(8, 16), (4, 8), (2, 4)]
    seen.clear()
    pooling(torch.rand(1, 512, 30, 40))  # 4:3 -> 10.67, 5.33, 2.67 columns
    assert seen == [(8, 11), (4, 5), (2, 3)]
    seen.clear()
    pooling(torch.rand(1, 512, 8, 10))  # 10, 5, 2.5 columns: half a column goes to the even number, as in the release
    assert seen == [(8, 10), (4, 5), (2, 2)]
    seen.clear()
    pooling(torch.rand(1, 512, 8, 14))  # 14, 7, 3.5 columns
    assert seen == [(8, 14), (4, 7), (2, 4)]
    seen.clear()
    pooling(torch.rand(1, 512, 40, 2))
    assert seen == [(8, 1), (4, 1), (2, 1)]


def test_features_are_the_stages_then_the_ladder() -> None:
    outputs = create("swiftnet", "cityscapes19").eval().outputs(torch.rand(1, 3, 128, 128))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (64, 32, 32),
        "stage2": (128, 16, 16),
        "stage3": (256, 8, 8),
        "stage4": (512, 4, 4),
        "pyramid": (128, 4, 4),
        "fused": (128, 32, 32),
        "logits": (19, 32, 32),
    }


def test_the_ladder_takes_sums_or_what_relu_makes_of_them() -> None:
    network = create("swiftnet", "cityscapes19", skip="relu")
    images = torch.rand(2, 3, 64, 96)
    rectified = network.outputs(images)
    network.skip = "sum"
    sums = network.outputs(images)
    for stage in range(1, 5):
        name = f"stage{stage}"
        assert torch.equal(rectified.features[name], sums.features[name].relu())
    maps = [rectified.features[f"stage{stage}"] for stage in range(1, 5)]
    assert torch.equal(network.decoder(maps), rectified.coarse)
    assert not torch.allclose(rectified.logits, sums.logits)
    assert create("swiftnet", "cityscapes19").skip == "sum", "the paper's"
