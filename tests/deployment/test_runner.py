"""A file whose statistics are inputs, run without torch, is the network with these statistics."""

import copy
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from one_norm_network import OneNorm
from torch import nn

from hardy.adaptation.bn_domains import BNDomains
from hardy.deployment import graph
from hardy.deployment.export import ProofError, export
from hardy.deployment.prototypes import measured
from hardy.deployment.runner import Runner, constant, read_table, table_beside
from hardy.networks.base import resize
from hardy.networks.building.create import create
from hardy.ops.batch_statistics import batch_norms, install, use_given
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units

pytestmark = pytest.mark.costly
SIZE = (40, 56)


def images(seed, size=SIZE):
    """An image (1, 3, H, W) of blobs; every third has the same brightness."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, size[0] // 8, size[1] // 8, generator=generator)
    return resize(coarse, size) * (0.4 + 0.3 * (seed % 3))


@pytest.fixture(scope="module")
def network():
    """Two convolutions with batch norms, and one batch norm after global pooling, which has one value per channel."""
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(11), nn.Upsample(SIZE))
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 11, 3, padding=1)
    own = OneNorm(first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.BatchNorm2d(11), Beside(nn.Sequential(*pooled)))
    return own.eval()


class Beside(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@pytest.fixture(scope="module")
def table(network):
    """Two domains of three and two images."""
    return measured(network, {"a/day": [images(0), images(3), images(6)], "a/night": [images(1), images(4)]})


@pytest.fixture(scope="module")
def files(network, table, tmp_path_factory):
    """The network as a file of each kind, with logits: fixed, inputs, observed."""
    folder = tmp_path_factory.mktemp("runner")
    made = {}
    for kind in ("fixed", "inputs", "observed"):
        made[kind] = folder / f"{kind}.onnx"
        prototypes = None if kind == "fixed" else table
        export(network, made[kind], size=SIZE, output="logits", statistics=kind, prototypes=prototypes)
    return made


def expected(network, statistics, given):
    """The logits of ``network`` with the ``statistics`` (2, N)."""
    twin = copy.deepcopy(network)
    norms = list(batch_norms(install(twin), "the test").values())
    use_given(norms, torch.from_numpy(statistics).split([norm.source.shape[1] for norm in norms], 1))
    with torch.no_grad():
        return twin(given).numpy()


def far(one, other):
    return float(np.abs(one - other).max())


def test_the_source_statistics_give_the_outputs_of_the_plain_file(network, files):
    given = images(5).numpy()
    plain = onnxruntime.InferenceSession(files["fixed"]).run(None, {"images": given})[0]
    for kind in ("inputs", "observed"):
        without = onnxruntime.InferenceSession(files[kind]).run(None, {"images": given})[0]  # by the defaults
        assert far(without, plain) < 1e-4
        runner = Runner(files[kind])
        assert far(runner(given), plain) < 1e-4
        runner.use("source")
        assert far(runner(given), plain) < 1e-4


@pytest.mark.parametrize("kind", ["inputs", "observed"])
def test_a_domain_gives_the_logits_of_bn_domains(network, table, files, kind):
    live = BNDomains(network, every=1)
    live.enter("a/night")
    for seed in (1, 4):
        live(images(seed))
    runner = Runner(files[kind])
    assert runner.domains == ("source", "a/day", "a/night")
    given, plain = images(7), Runner(files[kind])(images(7).numpy())
    norms = table.norms.values()
    row = np.concatenate([each["a/night"].numpy() for each in live.table().values()], 1)
    assert row.shape == (2, sum(norms))
    for fuse in (True, False):
        runner.use("a/night", fuse=fuse)
        assert far(runner.statistics, row) < 1e-5
        assert far(runner(given.numpy()), expected(network, row, given)) < 1e-4
        assert far(runner(given.numpy()), plain) > 0.01


def test_a_file_of_observed_statistics_is_proven_without_prototypes_too(network, tmp_path):
    proof = export(network, tmp_path / "net.onnx", size=SIZE, statistics="observed")
    assert proof.difference < 1e-4  # at drawn statistics, also of the norm with one value per channel


def test_domains_are_mixed_by_their_weights(network, table, files):
    runner, given = Runner(files["inputs"]), images(8)
    mean = 0.75 * table.rows["a/night"] + 0.25 * table.rows["source"]
    for fuse in (True, False):
        runner.use({"a/night": 3, "source": 1}, fuse=fuse)
        assert far(runner.statistics, mean) < 1e-6
        assert far(runner(given.numpy()), expected(network, mean, given)) < 1e-4


def test_fused_statistics_leave_no_batch_norm_to_run(files, table, tmp_path):
    def left(model, name):
        graph.Session(model, optimised=tmp_path / name)
        return graph.count(tmp_path / name, "BatchNormalization")

    assert left(files["inputs"], "inputs.onnx") == len(table.norms)
    row = table.rows["a/day"]
    assert left(constant(files["inputs"].read_bytes(), row), "fused.onnx") == left(files["fixed"], "plain.onnx")
    assert left(files["fixed"], "plain.onnx") < len(table.norms)


def test_it_follows_domains_as_bn_domains_does(network, files, tmp_path):
    live = BNDomains(network, every=3, prior=2)
    options = {"every": 3, "prior": 2}
    runners = [Runner(files["observed"], **options), Runner(files["inputs"], observed=files["observed"], **options)]
    for step in range(30):
        domain = "new/x" if step % 4 else "new/y"
        given = images(step)
        live.enter(domain)
        logits = live(given).numpy()
        for runner in runners:
            assert far(runner.adapt(given.numpy(), domain), logits) < 1e-4, step
    runners[1].save(tmp_path / "later.safetensors")
    again = read_table(tmp_path / "later.safetensors")
    assert again.counts == {"source": 0, "a/day": 3, "a/night": 2, "new/y": 8, "new/x": 14}
    rows = {name: np.concatenate([one[name] for one in live.table().values()], 1) for name in ("new/x", "new/y")}
    for name, row in rows.items():
        assert far(again.rows[name], row) < 1e-4
    moved = Runner(files["inputs"], tmp_path / "later.safetensors")
    moved.use("new/x")
    assert far(moved.statistics, rows["new/x"]) < 1e-4


@pytest.mark.parametrize("kind", ["tiny", pytest.param("fast_scnn", marks=pytest.mark.exhaustive), "pruned"])
def test_networks_of_hardy_agree_too(kind, tmp_path):
    torch.manual_seed(0)
    size, dynamic = ((64, 96), False) if kind == "fast_scnn" else ((40, 56), kind == "tiny")
    network = create("tiny" if kind == "pruned" else kind, "camvid11")
    with torch.no_grad():
        for seed in range(30):
            network.train()(torch.cat([images(seed, size), images(seed + 1, size)]))
    network.eval()
    if kind == "pruned":
        units = find_units(network)
        remove(network, units, {unit.name: range(0, unit.size, 2) for unit in units})
    table = measured(network, {"day": [images(seed, size) for seed in (0, 3)]})
    settings = {"size": size, "output": "logits", "prototypes": table, "images": [images(9, size)[0]]}
    export(network, tmp_path / "net.onnx", statistics="inputs", dynamic=dynamic, **settings)
    runner = Runner(tmp_path / "net.onnx")
    runner.use("day")
    for at in (size, (size[0] + 13, size[1] + 22)) if dynamic else (size,):
        given = images(9, at)
        logits = expected(network, table.rows["day"], given)
        assert far(runner(given.numpy()), logits) < 1e-4 * max(1, np.abs(logits).max())  # 128 in fast_scnn, untrained
    if kind == "pruned":
        export(network, tmp_path / "observed.onnx", statistics="observed", **settings)
        runner, live = Runner(tmp_path / "net.onnx", observed=tmp_path / "observed.onnx"), BNDomains(network)
        live.enter("new")
        for seed in range(4):
            given = images(seed, size)
            assert far(runner.adapt(given.numpy(), "new"), live(given).numpy()) < 1e-4


def test_a_saved_table_is_continued_as_if_it_had_not_been(network, files, tmp_path):
    live, runner = BNDomains(network, every=3), Runner(files["observed"], every=3)
    live.enter("new")
    for step in range(7):
        if step == 3:
            runner.save(tmp_path / "t.safetensors")
            runner = Runner(files["observed"], tmp_path / "t.safetensors", every=3)
        live(images(step))
        runner.adapt(images(step).numpy(), "new")
    runner.save(tmp_path / "t.safetensors")
    again = read_table(tmp_path / "t.safetensors")
    assert again.counts["new"] == 7
    assert far(again.rows["new"], np.concatenate([one["new"] for one in live.table().values()], 1)) < 1e-4


def test_it_needs_no_torch(files):
    code = (
        "import sys, numpy; from hardy.deployment.runner import Runner; "
        f"r = Runner({str(files['inputs'])!r}); r.use('a/day'); r(numpy.zeros((1, 3, {SIZE[0]}, {SIZE[1]}), 'f')); "
        "print(sorted({'torch', 'onnx', 'safetensors', 'typer', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_proof_and_the_file_name_what_is_beside_it(files, table):
    description = json.loads(onnxruntime.InferenceSession(files["inputs"]).get_modelmeta().custom_metadata_map["hardy"])
    assert (description["statistics"], description["domains"], description["norms"]) == (
        "inputs",
        ["a/day", "a/night"],
        table.norms,
    )
    assert not table_beside(files["fixed"]).exists()
    assert read_table(table_beside(files["inputs"])).counts == {"source": 0, "a/day": 3, "a/night": 2}


def test_a_file_that_answers_otherwise_at_other_statistics_is_refused(network, table, tmp_path, monkeypatch):
    class Deaf(graph.Session):
        """Ignores the statistics that it is fed."""

        def __call__(self, images, **inputs):
            return super().__call__(images)

    monkeypatch.setattr("hardy.deployment.prototypes.Session", Deaf)
    with pytest.raises(ProofError, match="the file and the network agree on"):
        export(network, tmp_path / "net.onnx", size=SIZE, statistics="inputs", prototypes=table)
    assert list(tmp_path.iterdir()) == []
