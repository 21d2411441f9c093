import pytest
import timm
import torch

import hardy
from hardy.networks.building.create import create
from hardy.registry import LOSSES


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv2_035", "vit_tiny_patch16_224"])
def test_agrees_with_timms_own_classifier(encoder: str) -> None:
    network = create("classifier", "pacs7", encoder=encoder).eval()
    reference = timm.create_model(encoder, num_classes=7).eval()
    reference.load_state_dict(network.backbone.state_dict(), strict=False)
    reference.get_classifier().load_state_dict(network.head.state_dict())
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(network.normalise(images)), rtol=1e-4, atol=1e-5)


def test_embedding_is_what_the_linear_layer_sees() -> None:
    network = create("classifier", "pacs7").eval()
    outputs = network.outputs(torch.rand(3, 3, 64, 64))
    assert outputs.embedding.shape == (3, 512)
    torch.testing.assert_close(network.head(outputs.embedding), outputs.logits)


def test_its_loss_is_the_classification() -> None:
    network = create("classifier", "pacs7")
    labels = torch.tensor([0, 255])
    outputs = network.outputs(torch.rand(2, 3, 64, 64))
    terms = network.losses(outputs, labels, LOSSES.build("cross_entropy", {"class_count": 7}))
    expected = torch.nn.functional.cross_entropy(outputs.logits[:1], labels[:1])
    assert list(terms) == ["classification"]
    torch.testing.assert_close(terms["classification"], expected)


def test_frozen_norms_keep_their_statistics_and_learn_their_scales() -> None:
    torch.manual_seed(0)
    network = create("classifier", "pacs7", encoder="test_resnet", freeze_norm=True)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    for _ in range(2):  # as built, and back from an evaluation
        assert network.training
        assert network.head.training
        assert not any(norm.training for norm in norms)
        network.eval().train()
    before = [norm.running_mean.clone() for norm in norms]
    images = torch.rand(4, 3, 64, 64)
    together = network(images)
    torch.testing.assert_close(network(images[:1])[0], together[0], rtol=1e-4, atol=1e-5)  # no image sees another
    together.sum().backward()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert all(norm.weight.grad is not None for norm in norms)
    assert norms[0].weight.grad.any()


def test_frozen_norms_are_part_of_the_artefact(tmp_path) -> None:
    network = create("classifier", "pacs7", encoder="test_resnet", freeze_norm=True)
    hardy.save(network, tmp_path)
    loaded = hardy.load(tmp_path).train()
    assert loaded.freeze_norm
    assert not any(module.training for module in loaded.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert not hardy.create("classifier", classes="pacs7", encoder="test_resnet").freeze_norm
