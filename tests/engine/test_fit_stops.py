"""The training loop stops in good order: on signals, on bad numbers, and before what cannot run."""

import signal

import pytest
import torch
from torch import nn

import hardy
from hardy.algorithms.erm import ERM
from hardy.device import pick
from hardy.engine import fit
from hardy.engine.checkpoint import read
from hardy.engine.fit import Fit
from hardy.engine.stop import Stopped
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim, RunSection


def place(**options):
    return RunSection(device="cpu", log_every=1, **options)


def weights(algorithm):
    return {name: value.detach().clone() for name, value in algorithm.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_stop_is_obeyed_after_the_step_and_the_checkpoint_is_written(shallow, colours, tmp_path):
    class Stopping(ERM):
        def after_step(self, step):
            if step == 3:
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop = Fit(Stopping(shallow().network, CrossEntropy(3)), colours(), Optim(steps=9), place(), folder=tmp_path)
    with pytest.raises(Stopped, match="stopped after step 3; the same command resumes from there") as caught:
        loop.run()
    assert (caught.value.step, caught.value.signal_number) == (3, signal.SIGTERM)
    assert read(tmp_path / "checkpoint.safetensors", "").step == 3
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("step", [3, 9], ids=["midway", "last"])
@pytest.mark.parametrize("method", ["_is_due", "save"])
def test_a_stop_between_two_steps_is_obeyed_with_its_checkpoint(shallow, colours, tmp_path, monkeypatch, method, step):
    usual = getattr(Fit, method)

    def interrupted(loop, *arguments):
        done = usual(loop, *arguments)
        if loop.progress.step == step and not asked:
            asked.append(step)
            signal.raise_signal(signal.SIGTERM)
        return done

    asked = []
    monkeypatch.setattr(Fit, method, interrupted)
    section = place(checkpoint_every=100 if method == "_is_due" else 3)
    loop = Fit(ERM(shallow().network, CrossEntropy(3)), colours(), Optim(steps=9), section, folder=tmp_path)
    with pytest.raises(Stopped, match=f"stopped after step {step}"):
        loop.run()
    assert read(tmp_path / "checkpoint.safetensors", "").step == step


def test_a_second_signal_acts_as_it_did_before(shallow, colours):
    class Impatient(ERM):
        def after_step(self, step):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    loop = Fit(Impatient(shallow().network, CrossEntropy(3)), colours(), Optim(steps=9), place())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    finally:
        signal.signal(signal.SIGINT, before)


# ------------------------------------------------------------------------------------------------ bad numbers


class Breaking(ERM):
    """A second term that is ``value`` at step ``at``."""

    value, at, seen = float("nan"), 6, 0

    def forward(self, batch):
        self.seen += 1
        terms = super().forward(batch)
        extra = self.value if self.seen == self.at else 0.5
        return {**terms, "extra": terms["segmentation"] * 0 + extra}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_term_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(shallow, colours, tmp_path, value):
    algorithm = Breaking(shallow().network, CrossEntropy(3))
    algorithm.value = value
    loop = Fit(algorithm, colours(), Optim(steps=20), place(checkpoint_every=2), folder=tmp_path, owner="o")
    with pytest.raises(InputError) as caught:
        loop.run()
    text = str(caught.value)
    assert text.startswith(f"train step 6: extra = {value} on a batch of domains [0, 1, 0, 1]; ")
    assert f"the last good state is in {tmp_path / 'checkpoint.safetensors'}" in text
    assert "\n" not in text
    saved = read(tmp_path / "checkpoint.safetensors", "o")
    assert saved.step == 4
    assert all(value.isfinite().all() for value in saved.algorithm.values())
    good = Fit(shallow(), colours(), Optim(steps=20), place())
    good.run(4)
    assert same(dict(saved.algorithm), weights(good.algorithm))


def test_the_message_does_not_promise_a_checkpoint_that_is_not_there(shallow, colours, tmp_path):
    for folder, said in ((None, "checkpoints are off"), (tmp_path, "no checkpoint was written yet")):
        algorithm = Breaking(shallow().network, CrossEntropy(3))
        with pytest.raises(InputError, match=said):
            Fit(algorithm, colours(), Optim(steps=20), place(), folder=folder).run()


def test_weights_that_are_not_finite_are_never_written(shallow, colours, tmp_path):
    """A finite loss can have an infinite gradient; its step may be the one before a checkpoint."""

    class Exploding(ERM):
        def after_step(self, step):
            if step == 6:
                self.network.module[3].bias.data[1] = float("inf")

    algorithm = Exploding(shallow().network, CrossEntropy(3))
    loop = Fit(algorithm, colours(), Optim(steps=20), place(checkpoint_every=3), folder=tmp_path)
    with pytest.raises(InputError, match=r"train step 6: network\.module\.3\.bias is no longer finite; the last good"):
        loop.run()
    assert read(tmp_path / "checkpoint.safetensors", "").step == 3


def test_slow_steps_write_a_checkpoint_every_ten_minutes(shallow, colours, tmp_path, monkeypatch):
    """Steps of four minutes: after steps 3 and 6, and after step 7, the last."""
    now, saved = [0.0], []

    class Slow(ERM):
        def after_step(self, step):
            now[0] += 240.0

    monkeypatch.setattr(fit.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(fit.checkpoint, "write", lambda file, state: saved.append(state.step))
    loop = Fit(Slow(shallow().network, CrossEntropy(3)), colours(), Optim(steps=7), place(), folder=tmp_path)
    for _ in range(7):
        loop.run(1)
    assert saved == [3, 6, 7]


def test_a_batch_of_one_before_a_batch_norm_of_one_cell_is_explained(three, colours):
    pooled = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    for size, accumulate in ((1, 1), (2, 2)):
        algorithm = ERM(hardy.wrap(pooled, three), CrossEntropy(3))
        with pytest.raises(InputError) as caught:
            Fit(algorithm, colours(size), Optim(steps=1, accumulate=accumulate), place()).run()
        assert str(caught.value) == (
            "optim.batch: 1 image at a time is too few for the batch norm of Wrapped's 1x1 map; "
            "use 2 or more per process and part"
        )
    Fit(ERM(hardy.wrap(pooled, three), CrossEntropy(3)), colours(2), Optim(steps=1), place()).run()


def test_devices_and_precisions_that_are_not_there_are_refused(shallow, colours, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="there is no device 'cuda:3' here; use one of: auto, cpu"):
        Fit(shallow(), colours(), Optim(), RunSection(device="cuda:3"))
    with pytest.raises(InputError, match="there is no device 'gpu' here"):
        Fit(shallow(), colours(), Optim(), RunSection(device="gpu"))
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        Fit(shallow(), colours(), Optim(), place(precision="fp16"))


def test_each_process_of_a_parallel_run_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for local, own in ((None, 0), ("0", 0), ("1", 1), ("2", 0)):
        if local is not None:
            monkeypatch.setenv("LOCAL_RANK", local)
        assert pick("auto") == pick("cuda") == torch.device("cuda", own)
        assert pick("cuda:1") == torch.device("cuda", 1)
        assert pick("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick("auto") == torch.device("cpu")
