"""The training loop: what a step does, in which order, and how it stops on bad numbers."""

import math

import pytest
import torch
from torch import nn

from hardy.algorithms.erm import ERM
from hardy.engine.fit import Fit
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim, RunSection
from hardy.seed import seed_all
from hardy.types import Batch


def place(**options):
    return RunSection(device="cpu", log_every=1, **options)


def weights(algorithm):
    return {name: value.detach().clone() for name, value in algorithm.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def trained(algorithm, batches, steps=3, run=None, **options):
    """The algorithm after ``steps`` plain steps, and what was logged."""
    seen = []
    optim = Optim(**{"steps": steps, "lr": 0.1, "schedule": "constant", "weight_decay": 0.0} | options)
    Fit(algorithm, batches, optim, run or place(), log=lambda step, values: seen.append((step, values))).run()
    return algorithm, seen


# ------------------------------------------------------------------------------------------- what a step does


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_loss_falls(shallow, colours, name):
    _, seen = trained(shallow(), colours(8), steps=60, name=name, lr=0.5 if name == "sgd" else 0.03)
    assert seen[0][1]["segmentation"] > 1.0
    assert seen[-1][1]["segmentation"] < 0.35
    assert [step for step, _ in seen] == list(range(1, 61))


def test_a_step_is_a_step_of_bare_pytorch(shallow, colours):
    algorithm, seen = trained(shallow(norm=True), colours(), steps=4, momentum=0.9, weight_decay=0.0)
    bare = shallow(norm=True).train()
    optimiser = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9)
    stream = colours()(0, 0, 1)
    for _, logged in seen:
        batch = next(stream)
        loss = nn.functional.cross_entropy(bare.network(batch.images), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert logged["segmentation"] == pytest.approx(loss.item(), rel=1e-6)
        assert logged["lr"] == 0.1
    for one, other in zip(algorithm.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("parts", [2, 4, 9])
def test_accumulation_gives_the_gradient_of_the_whole_batch(shallow, colours, parts):
    """Nine parts of a batch of four are four parts of one."""
    whole, logged = trained(shallow(), colours(), steps=1, lr=1.0, momentum=0.0)
    split, logged_split = trained(shallow(), colours(), steps=1, lr=1.0, momentum=0.0, accumulate=parts)
    start = shallow()
    for now, other, before in zip(split.parameters(), whole.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(before - now, before - other, rtol=1e-4, atol=1e-7)
        assert not torch.equal(before, now)
    assert logged_split[0][1]["segmentation"] == pytest.approx(logged[0][1]["segmentation"], rel=1e-6)


def test_every_step_draws_under_a_key_of_its_own(shallow, colours):
    """The same whatever was drawn before, another at every step and in every stage."""

    class Drawing(ERM):
        def forward(self, batch):
            drawn.append(torch.rand(2).tolist())
            return super().forward(batch)

    def run(stage, steps):
        drawn.clear()
        torch.rand(len(stage))
        algorithm = Drawing(shallow().network, CrossEntropy(3))
        Fit(algorithm, colours(), Optim(steps=steps), place(seed=4), stage=stage).run()
        return list(drawn)

    drawn = []
    wanted = []
    for step in range(3):
        seed_all(4, "train", step, 0)
        wanted.append(torch.rand(2).tolist())
    assert run("train", 3) == wanted
    assert len({tuple(pair) for pair in [*wanted, *run("recover", 3)]}) == 6


def test_the_parts_of_a_batch_keep_its_balance_of_domains(shallow):
    seen = []

    class Watching(ERM):
        def forward(self, batch):
            seen.append(batch.domains.tolist())
            return super().forward(batch)

    def batches(start, rank, processes):
        images = torch.rand(6, 3, 8, 8)
        while True:
            yield Batch(images, images.argmax(1), torch.tensor([0, 0, 0, 0, 1, 1]))

    trained(Watching(shallow().network, CrossEntropy(3)), batches, steps=1, accumulate=2)
    assert seen == [[0, 0, 1], [0, 0, 1]]


def test_clipping_bounds_the_step(shallow, colours):
    start = shallow()
    free, _ = trained(shallow(), colours(), steps=1, lr=1.0, momentum=0.0)
    clipped, _ = trained(shallow(), colours(), steps=1, lr=1.0, momentum=0.0, clip=0.01)
    steps = [
        [(b - a).detach() for a, b in zip(each.parameters(), start.parameters(), strict=True)]
        for each in (free, clipped)
    ]
    norms = [math.sqrt(sum(float(part.square().sum()) for part in step)) for step in steps]
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
    for long, short in zip(*steps, strict=True):
        torch.testing.assert_close(short, long * (norms[1] / norms[0]), rtol=1e-3, atol=1e-6)


def test_a_clip_that_nothing_exceeds_changes_nothing(shallow, colours):
    assert same(weights(trained(shallow(), colours(), clip=1e6)[0]), weights(trained(shallow(), colours())[0]))


def test_the_moving_average_by_hand(shallow, colours):
    """a = d a + (1 - d) w with d = min(ema, step / (step + 9)); the counter of batches is copied."""
    algorithm = shallow(norm=True)
    wanted = {name: value.double() for name, value in weights(algorithm).items()}
    optim = Optim(steps=4, lr=0.5, ema=0.2, schedule="constant")
    loop = Fit(algorithm, colours(), optim, place())
    for step in range(1, 5):
        loop.run(1)
        decay = [None, 1 / 10, 2 / 11, 0.2, 0.2][step]
        for name, value in algorithm.state_dict().items():
            moved = decay * wanted[name] + (1 - decay) * value.double()
            wanted[name] = moved if value.is_floating_point() else value.double()
    for name, value in loop.averaged().items():
        torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-6)
    assert loop.averaged()["network.module.1.num_batches_tracked"] == 4


def test_without_a_moving_average_the_weights_themselves_are_kept(shallow, colours):
    loop = Fit(shallow(), colours(), Optim(steps=1), place())
    loop.run()
    assert same(loop.averaged(), weights(loop.algorithm))


def test_hooks_are_called_in_order(shallow, colours):
    calls = []

    class Hooked(ERM):
        def forward(self, batch):
            calls.append(("forward", len(batch)))
            return super().forward(batch)

        def after_backward(self):
            weight = self.network.module[0].weight
            calls.append(("after_backward", weight.grad is not None, torch.equal(weight, before[0])))
            self.gradient = weight.grad.norm()

        def after_step(self, step):
            weight = self.network.module[0].weight
            calls.append(("after_step", step, torch.equal(weight, before[0])))
            before[0] = weight.detach().clone()

    algorithm = Hooked(shallow().network, CrossEntropy(3))
    before = [algorithm.network.module[0].weight.detach().clone()]
    trained(algorithm, colours(), steps=2, accumulate=2, clip=1e-3)
    one = [("forward", 2), ("forward", 2), ("after_backward", True, True)]
    assert calls == [*one, ("after_step", 1, False), *one, ("after_step", 2, False)]
    assert algorithm.gradient > 1e-2, "the hook sees the gradient before it is clipped"


def test_all_pixels_ignored_is_no_loss_and_no_step(shallow):
    def batches(start, rank, processes):
        while True:
            yield Batch(torch.rand(2, 3, 8, 8), torch.full((2, 8, 8), 255), torch.zeros(2, dtype=torch.int64))

    algorithm, seen = trained(shallow(), batches)
    assert [values["segmentation"] for _, values in seen] == [0.0, 0.0, 0.0]
    assert same(weights(algorithm), weights(shallow()))


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}], ids=str)
def test_other_precisions_and_layouts_learn_the_same(shallow, colours, options):
    _, plain = trained(shallow(norm=True), colours(8), steps=30, lr=0.5)
    algorithm, seen = trained(shallow(norm=True), colours(8), steps=30, lr=0.5, run=place(**options))
    assert seen[-1][1]["segmentation"] == pytest.approx(plain[-1][1]["segmentation"], rel=0.05)
    assert {value.dtype for value in algorithm.parameters()} == {torch.float32}
    if options.get("channels_last"):
        weight = algorithm.network.module[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_bf16_computes_in_bf16(shallow, colours):
    kinds = []
    algorithm = shallow()
    algorithm.network.module[3].register_forward_hook(lambda module, given, result: kinds.append(result.dtype))
    trained(algorithm, colours(), steps=1, run=place(precision="bf16"))
    assert kinds == [torch.bfloat16]


def test_frozen_weights_stay(shallow, colours):
    algorithm = shallow()
    algorithm.network.module[0].requires_grad_(False)
    before = weights(algorithm)
    trained(algorithm, colours())
    after = weights(algorithm)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"network.module.3.weight", "network.module.3.bias"}


def test_a_step_draws_by_seed_and_step_alone(shallow, colours):
    def dropped(seed, outside):
        algorithm = shallow()
        algorithm.network.module[1] = nn.Dropout(0.5)
        torch.manual_seed(outside)
        return weights(trained(algorithm, colours(), run=place(seed=seed))[0])

    assert same(dropped(0, 1), dropped(0, 2))
    assert not same(dropped(0, 1), dropped(1, 1))


# ------------------------------------------------------------------------------------------ one call at a time


def test_running_in_pieces_is_running_at_once(shallow, colours):
    optim = Optim(steps=7, lr=0.3, warm_up=2)
    loop = Fit(shallow(norm=True), colours(), optim, place())
    assert [loop.run(3).step, loop.run(3).step, loop.run(3).step, loop.run().step] == [3, 6, 7, 7]
    whole = Fit(shallow(norm=True), colours(), optim, place())
    whole.run()
    assert same(weights(loop.algorithm), weights(whole.algorithm))


def test_validation_comes_when_asked_and_after_the_last_step(shallow, colours):
    asked, modes = [], []
    loop = Fit(shallow(), colours(), Optim(steps=7), place())

    def validate(step):
        asked.append(step)
        modes.append(loop.algorithm.training)
        loop.algorithm.eval()
        return {3: 0.5, 6: 0.8, 7: 0.8}[step]

    progress = loop.run(validate=validate, every=3)
    assert asked == [3, 6, 7]
    assert modes == [True, True, True], "training goes on in training mode"
    assert progress.best == (0.8, 6), "of equal scores the first is kept"
