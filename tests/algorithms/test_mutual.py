"""Mutual learning: its terms by hand, its peers, and what a run keeps of them."""

import copy
from itertools import count

import pytest
import torch
from torch.nn import functional as F

import hardy
from hardy.algorithms.erm import ERM
from hardy.algorithms.mutual import Mutual
from hardy.commands import train
from hardy.engine import optimiser
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.networks.building.create import create
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.recipe import Optim, RunSection, from_values
from hardy.records import read as records_of
from hardy.seed import seed_all, seeded
from hardy.types import Batch


def divergence(taught, said, counted):
    taught, said = (value.movedim(1, -1)[counted] for value in (taught, said))
    return F.kl_div(F.log_softmax(said, 1), F.softmax(taught, 1), reduction="none").sum(1).mean().item()


def mutual(network, loss, **options):
    torch.manual_seed(4)
    return Mutual(network, loss, 10, **{"warm_up": 0.0, **options}).train()


# ------------------------------------------------------------------------------------------------ terms


def test_each_learns_from_the_labels_and_from_each_other(scenes, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = mutual(scenes, loss, peers=2)
    terms = algorithm(batch)
    names = ["", "peer1_", "peer2_"]
    assert sorted(terms) == sorted(f"{name}{term}" for name in names for term in ("segmentation", "kl"))
    said = [network(batch.images) for network in algorithm.all]
    for k, name in enumerate(names):
        own = ERM(algorithm.all[k], loss)(batch)["segmentation"].item()
        assert terms[f"{name}segmentation"].item() == own
        wanted = sum(divergence(said[other], said[k], batch.labels != 255) for other in range(3) if other != k) / 2
        assert wanted > 0
        assert terms[f"{name}kl"].item() == pytest.approx(wanted, rel=1e-9)


def test_the_mean_of_all_can_teach(scenes, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = mutual(scenes, loss, peers=2, by="mean")
    terms = algorithm(batch)
    said = [network(batch.images) for network in algorithm.all]
    mean = torch.stack(said).mean(0)
    for k, name in enumerate(("", "peer1_", "peer2_")):
        wanted = divergence(mean, said[k], batch.labels != 255)
        assert terms[f"{name}kl"].item() == pytest.approx(wanted, rel=1e-9)


def test_at_each_pixel_the_best_can_teach(scenes, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    batch.labels[0, 0, :2] = 255
    algorithm = mutual(scenes, loss, peers=2, by="best")
    said = [network(batch.images) for network in algorithm.all]
    taught = torch.stack(said).mean(0)
    winners = set()
    for image, row, column in (batch.labels != 255).nonzero().tolist():
        label = int(batch.labels[image, row, column])
        chances = [each.softmax(1)[image, label, row, column].item() for each in said]
        winners.add(chances.index(max(chances)))
        taught[image, :, row, column] = said[chances.index(max(chances))][image, :, row, column]
    assert len(winners) > 1
    terms = algorithm(batch)
    for k, name in enumerate(("", "peer1_", "peer2_")):
        wanted = divergence(taught, said[k], batch.labels != 255)
        assert terms[f"{name}kl"].item() == pytest.approx(wanted, rel=1e-9)


def test_without_labels_the_best_is_the_mean(scenes, draw_batch, loss):
    batch = draw_batch([0, 1, 1], size=(3, 4))
    batch.domains[1:] = -1
    batch.labels[1:] = 255
    algorithm = mutual(scenes, loss, by="best")
    said = [network(batch.images) for network in algorithm.all]
    taught = torch.stack(said).mean(0)
    right = batch.labels[:1, None].clamp_max(said[0].shape[1] - 1)
    first = said[0][:1].log_softmax(1).gather(1, right) >= said[1][:1].log_softmax(1).gather(1, right)
    taught[:1] = torch.where(
        (batch.labels[:1] == 255)[:, None], taught[:1], torch.where(first, said[0][:1], said[1][:1])
    )
    everywhere = (batch.labels != 255) | (batch.domains == -1)[:, None, None]
    assert algorithm(batch)["kl"].item() == pytest.approx(divergence(taught, said[0], everywhere), rel=1e-9)


def test_no_gradient_reaches_the_one_that_teaches(scenes, draw_batch, loss):
    for by in ("peers", "mean", "best"):
        algorithm = mutual(scenes, loss, by=by)
        algorithm(draw_batch([0, 1], size=(3, 4)))["kl"].backward()
        assert scenes.head.weight.grad.any()
        assert all(value.grad is None for value in algorithm.others.parameters())
        scenes.zero_grad()


def test_it_warms_up(scenes, draw_batch, loss):
    batch = draw_batch([0, 1], size=(3, 4))
    algorithm = mutual(scenes, loss, warm_up=0.4)
    found = []
    for step in range(7):
        found.append(algorithm(batch)["kl"].item())
        algorithm.after_step(step + 1)
    assert found[-1] > 0
    assert [value / found[-1] for value in found] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1])


def test_images_without_labels_count_between_the_networks_alone(scenes, draw_batch, loss):
    batch = draw_batch([0, 1, 1], size=(3, 4))
    batch.labels[2], batch.domains[2] = 255, -1
    algorithm = mutual(scenes, loss)
    terms = algorithm(batch)
    labelled = algorithm(batch.where(batch.domains >= 0))
    for name in ("segmentation", "peer1_segmentation"):
        assert terms[name].item() == pytest.approx(labelled[name].item(), rel=1e-12)
    counted = (batch.labels != 255) | (batch.domains < 0).view(-1, 1, 1)
    said = [network(batch.images) for network in algorithm.all]
    assert terms["kl"].item() == pytest.approx(divergence(said[1], said[0], counted), rel=1e-9)


# ------------------------------------------------------------------------------------------------ peers


def test_copies_have_other_weights_and_the_same_shape():
    network = create("tiny", "camvid11", width=8)
    network.renormalise((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    before = copy.deepcopy(network.state_dict())
    small = copy.deepcopy(network)
    units = find_units(small)
    remove(small, units, {unit.name: range(0, unit.size, 2) for unit in units})
    for given in (network, small):
        peers = mutual(given, CrossEntropy(11), peers=2).peers()
        assert list(peers) == ["peer1", "peer2"]
        weights = [given.head.weight, *(peer.head.weight for peer in peers.values())]
        assert len({value.shape for value in weights}) == 1
        assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
        assert all(torch.equal(peer.mean, given.mean) for peer in peers.values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_peers_of_other_kinds_learn_together(draw_batch):
    network = create("tiny", "camvid11", width=8)
    peers = [{"name": "tiny", "width": 16}, "fast_scnn"]
    algorithm = mutual(network, CrossEntropy(11), peers=peers, losses={"kl": {}, "cwd": {}})
    assert [type(one).__name__ for one in algorithm.all] == ["Tiny", "Tiny", "FastSCNN"]
    assert algorithm.all[1].head.in_channels == 16
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    batch = Batch(images, torch.zeros(2, 64, 64, dtype=torch.long), torch.zeros(2))
    terms = algorithm(batch)
    assert {"kl", "peer2_cwd", "peer2_segmentation"} <= terms.keys()
    torch.stack(list(terms.values())).sum().backward()
    assert all(value.grad is not None for one in algorithm.all for value in one.parameters())
    rows = algorithm.table().rows
    assert len(rows) == 12
    assert rows[0][:2] == ("the network from peer1", "kl")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peers": 0}, "Mutual.peers: 0 is out of range; it must be 1 or more"),
        ({"peers": []}, "Mutual.peers: the list is empty; give a number or a list of networks"),
        ({"peers": "tiny"}, "Mutual.peers: 'tiny' is not a list; write [tiny], or a number of peers"),
        ({"peers": [{"name": "tiny", "classes": "camvid11"}]}, "Mutual.peers: leave out classes"),
        ({"peers": [{"width": 8}]}, "names no network; give {name: fast_scnn} and its options"),
        ({"peers": ["fast_scn"]}, "Mutual.peers: there is no network 'fast_scn'; did you mean 'fast_scnn'"),
        ({"peers": [{"name": "tiny", "wdth": 8}]}, "Mutual.peers: Tiny has no option 'wdth'"),
        ({"peers": ["classifier"]}, "predicts masks and the other one class per image"),
        ({"warm_up": 1.5}, "Mutual.warm_up: 1.5 is out of range"),
        ({"by": "mean", "losses": {"fitnets": {}}}, "FitNets compares features, and the teacher gives only logits"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InputError) as caught:
        mutual(create("tiny", "camvid11", width=8), CrossEntropy(11), **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_has_the_same_bits(tmp_path, accumulate):
    def batches(start, rank, processes):
        for step in count(start):
            generator = torch.Generator().manual_seed(step)
            images = torch.rand(4, 3, 32, 48, generator=generator)
            yield Batch(images, images.argmax(1), torch.zeros(4, dtype=torch.long))

    def fit(folder, seed=0):
        with seeded(seed, "network"):
            network = create("tiny", "camvid11", width=8)
        seed_all(seed, "algorithm")
        algorithm = Mutual(network, CrossEntropy(11), 4, peers=2, warm_up=0.5)
        optim = Optim(name="adam", lr=1e-2, steps=4, accumulate=accumulate)
        return Fit(algorithm, batches, optim, RunSection(device="cpu"), folder=folder)

    whole = fit(None)
    whole.run()
    first = fit(tmp_path)
    first.run(2)
    first.save()
    second = fit(tmp_path, seed=1)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())
    assert {name.split(".")[0] for name in wanted} == {"network", "others", "steps"}


@pytest.mark.costly
@pytest.mark.slow
def test_a_run_keeps_the_network_and_reports_its_peers(town, tmp_path, capsys):
    values = {
        "network": {"name": "tiny", "width": 8, "classes": str(town)},
        "data": {
            "sources": ["folder/day"],
            "unseen": ["folder/night"],
            "crop": [32, 48],
            "datasets": {"folder": {"root": str(town)}},
        },
        "algorithm": {"name": "mutual", "peers": [{"name": "tiny", "width": 12}]},
        "optim": {"steps": 6, "batch": 4, "lr": 0.05, "ema": 0.9},
        "evaluate": {"keep_counts": True},
        "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1},
    }
    folder = train.run(from_values(values))
    assert hardy.load(folder).head.in_channels == 8
    peer = hardy.load(folder / "peers" / "peer1")
    assert peer.head.in_channels == 12
    found = records_of(folder / "records.jsonl")
    assert {record.stage for record in found} == {"train", "train/peer1"}
    scores = {record.stage: record.value for record in found if (record.target, record.metric) == ("unseen", "miou")}
    assert set(scores) == {"train", "train/peer1"}
    own = hardy.evaluate(peer, ["folder/night"], datasets=values["data"]["datasets"], device="cpu")
    assert own.unseen == pytest.approx(scores["train/peer1"], abs=1e-6)
    (note,) = {record.notes["peer"] for record in found if record.stage == "train/peer1"}
    assert note == "peer1"
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "peer1 (tiny) was trained beside the network, which is kept" in " ".join(capsys.readouterr().out.split())
    assert "peer1 (tiny) was trained beside the network, which is kept: source-val " in log
    assert len(list(hardy.counts.read(folder))) == 2, "the counts are those of the network"


def test_the_encoders_of_peers_have_the_encoders_rate():
    network, peer = (create("encoder_decoder", "camvid11", encoder="test_resnet", decoder="linear") for _ in range(2))
    algorithm = mutual(network, CrossEntropy(11))
    algorithm.others[0] = peer
    peer.pretrained = True
    built = optimiser.build(algorithm, Optim(steps=1, lr=0.5, encoder_rate=0.1))
    slow = {id(value) for group in built.param_groups if group["base_lr"] == 0.05 for value in group["params"]}
    assert slow == {id(value) for module in peer.encoder() for value in module.parameters()}
