"""What an algorithm trains beside the network: an aligner by the loop's optimiser, a critic by one of its own."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from hardy.algorithms.base import Algorithm
from hardy.engine import optimiser
from hardy.engine.checkpoint import read
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.recipe import Optim, RunSection

OPTIM = Optim(name="adamw", lr=0.01, weight_decay=0.1, steps=6, clip=0.5, ema=0.5, accumulate=2)


class Adversarial(Algorithm):
    """The network's logits are aligned, and a critic that steps inside `forward` distinguishes them from noise."""

    def __init__(self, network, pixel_loss, critics=("critic",)):
        super().__init__(network)
        self.pixel_loss = pixel_loss
        self.aligner = nn.Conv2d(3, 4, 1)
        self.critic = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU(), nn.Conv2d(4, 1, 1))
        self.own = {name: torch.optim.Adam(self.critic.parameters(), lr=0.01, betas=(0.5, 0.9)) for name in critics}

    def optimisers(self):
        return self.own

    def forward(self, batch):
        outputs = self.network.outputs(batch.images)
        said = self.aligner(outputs.logits)
        for one in self.own.values():
            one.zero_grad()
            (self.critic(said.detach()) - self.critic(torch.randn_like(said))).mean().backward()
            one.step()
        terms = self.network.losses(outputs, batch.labels, self.pixel_loss)
        return {**terms, "critic": -self.critic(said).mean()}


@pytest.fixture
def fit(shallow, colours):
    """``fit(folder=None, seed=0, optim=OPTIM, **options)``: a loop that trains `Adversarial`."""

    def build(folder=None, seed=0, optim=OPTIM, **options):
        plain = shallow(norm=True, seed=seed)
        algorithm = Adversarial(plain.network, plain.pixel_loss, **options)
        return Fit(algorithm, colours(), optim, RunSection(device="cpu"), folder=folder, owner="o")

    return build


def held(one):
    return {id(value) for group in one.param_groups for value in group["params"]}


def test_the_loops_optimiser_holds_the_network_and_the_aligner_and_never_the_critic(fit):
    loop = fit()
    algorithm = loop.algorithm
    inner = {id(value) for value in algorithm.critic.parameters()}
    wanted = {id(value) for part in (algorithm.network, algorithm.aligner) for value in part.parameters()}
    assert held(loop.optimiser.optimizer) == wanted
    assert held(algorithm.own["critic"]) == inner
    assert [id(value) for value in optimiser.trained(algorithm)] == [
        id(value) for value in algorithm.parameters() if id(value) not in inner
    ]


def test_only_its_own_optimiser_moves_the_critic(fit):
    """The loop's rate and weight decay would move it, and its own rate is 0 here."""
    loop = fit(optim=OPTIM.model_copy(update={"lr": 1.0, "weight_decay": 0.5}))
    loop.algorithm.own["critic"].param_groups[0]["lr"] = 0.0
    before = {name: value.clone() for name, value in loop.algorithm.state_dict().items()}
    loop.run(2)
    moved = {name for name, value in loop.algorithm.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith("critic.")]
    assert {"aligner.weight", "aligner.bias"} <= moved


def test_clipping_does_not_count_the_critics_gradient(fit, monkeypatch):
    loop, seen = fit(), []
    monkeypatch.setattr(loop.accelerator, "clip_grad_norm_", lambda values, most: seen.append((list(values), most)))
    loop.run(1)
    ((values, most),) = seen
    assert most == 0.5
    assert {id(value) for value in values} == held(loop.optimiser.optimizer)
    assert all(value.grad is not None for value in loop.algorithm.critic.parameters()), "the loss did reach the critic"


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_bits(fit, tmp_path, stop):
    whole = fit()
    whole.run()
    first = fit(tmp_path)
    first.run(stop)
    first.save()
    second = fit(tmp_path, seed=99)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert {"critic.0.weight", "aligner.weight"} <= wanted.keys()
    for name, value in second.algorithm.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    states = [one.algorithm.own["critic"].state_dict()["state"] for one in (whole, second)]
    assert states[0].keys() == states[1].keys() != set()
    for index, slots in states[0].items():
        for name, value in slots.items():
            assert torch.equal(value, states[1][index][name]), (index, name)
    assert states[0][0]["step"] == 12, "twice a step, once for each part of the batch"


def test_a_rate_that_the_algorithm_changed_comes_back(fit, tmp_path):
    loop = fit(tmp_path)
    loop.run(1)
    loop.algorithm.own["critic"].param_groups[0]["lr"] = 0.003
    loop.save()
    again = fit(tmp_path)
    again.resume()
    assert again.algorithm.own["critic"].param_groups[0]["lr"] == 0.003
    assert again.algorithm.own["critic"].param_groups[0]["betas"] == (0.5, 0.9)


def test_names_with_a_slash_and_several_optimisers_come_back(fit, tmp_path):
    loop = fit(tmp_path, critics=("a/1", "a/2"))
    loop.run(2)
    loop.save()
    found = read(loop.file, "o").optimisers
    assert found.keys() == {"a/1", "a/2"}
    for name, one in loop.algorithm.own.items():
        for index, slots in one.state_dict()["state"].items():
            assert all(torch.equal(value, found[name]["state"][index][slot]) for slot, value in slots.items())
    assert not torch.equal(found["a/1"]["state"][0]["exp_avg"], found["a/2"]["state"][0]["exp_avg"])


def test_a_checkpoint_with_other_optimisers_is_refused(fit, tmp_path):
    loop = fit(tmp_path)
    loop.run(1)
    loop.save()
    with pytest.raises(InputError, match=r"the optimisers of its algorithm are critic, here judge\)"):
        fit(tmp_path, critics=("judge",)).resume()
    other = fit(tmp_path)
    other.algorithm.own["critic"] = torch.optim.SGD(other.algorithm.critic.parameters(), lr=0.1)
    with pytest.raises(InputError, match="is of another network or optimiser"):
        other.resume()


def test_a_checkpoint_without_any_is_written_as_before(shallow, colours, tmp_path):
    loop = Fit(shallow(), colours(), Optim(steps=2), RunSection(device="cpu"), folder=tmp_path, owner="o")
    loop.run()
    with safe_open(loop.file, framework="pt") as handle:
        names, state = list(handle.keys()), json.loads(handle.metadata()["state"])
    assert set(state) == {"owner", "step", "best", "groups", "numbers"}
    assert not [name for name in names if name.startswith("optimisers")]
    assert read(loop.file, "o").optimisers == {}


@pytest.mark.parametrize("name", ["optimisers/critic/0", "optimisers/other/0/step", "optimisers/critic/x/step"])
def test_tensors_of_no_optimiser_are_refused(fit, tmp_path, name):
    from safetensors.torch import save_file

    loop = fit(tmp_path)
    loop.run(1)
    loop.save()
    with safe_open(loop.file, framework="pt") as handle:
        header, tensors = handle.metadata(), {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    del header["sha256"]
    save_file({**tensors, name: torch.zeros(1)}, loop.file, header)
    with pytest.raises(InputError, match="its tensors are not a checkpoint's"):
        read(loop.file, "o")


@pytest.mark.parametrize("value", [3, [], {"critic": 1}, {"critic": [1]}, {"critic": [{"params": ["x"]}]}])
def test_a_header_of_wrong_values_is_refused(fit, tmp_path, value):
    from safetensors.torch import save_file

    loop = fit(tmp_path)
    loop.run(1)
    loop.save()
    with safe_open(loop.file, framework="pt") as handle:
        header, tensors = handle.metadata(), {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    del header["sha256"]
    header["state"] = json.dumps({**json.loads(header["state"]), "optimisers": value})
    save_file(tensors, loop.file, header)
    with pytest.raises(InputError, match="its header is damaged"):
        read(loop.file, "o")


def test_a_critic_is_trained_in_one_process(fit, monkeypatch):
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(InputError, match=r"has an optimiser of its own \(critic\); train it in one process"):
        fit()
