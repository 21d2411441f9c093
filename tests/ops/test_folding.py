"""Batch norms go into the layers around them exactly, and stay where that would not be exact."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.ops.dataflow import Dataflow
from hardy.ops.folding import fold_norms


def conv(kernel=3, into=4, out=4, **options):
    return nn.Conv2d(into, out, kernel, **options)


def norm(width=4, **options):
    return nn.BatchNorm2d(width, **options)


def drawn(module):
    """``module`` in float64 and evaluation mode, with norms that do something to every channel."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            for value in (part.weight, part.bias, part.running_mean):
                if value is not None:
                    nn.init.normal_(value, generator=generator)
            if part.running_var is not None:
                nn.init.uniform_(part.running_var, 0.5, 2.0, generator=generator)
    return module.double().eval()


def norms(module):
    return sum(isinstance(part, _BatchNorm) for part in module.modules())


def fold(module, images):
    """A folded copy and what was found; checked to say the same at about twice the size of ``images``."""
    folded = copy.deepcopy(module)
    found = fold_norms(folded, lambda: [folded(images)])
    with torch.no_grad():
        larger = torch.rand(2, images.shape[1], *(2 * side + 1 for side in images.shape[2:]), dtype=images.dtype)
        torch.testing.assert_close(folded(larger), module(larger), atol=1e-12, rtol=1e-10)
    return folded, found


class Joined(nn.Module):
    """Two branches side by side, and what comes after."""

    def __init__(self, first, second, rest):
        super().__init__()
        self.first, self.second, self.rest = first, second, rest

    def forward(self, x):
        return self.rest(torch.cat([self.first(x), self.second(x)], 1))


FOLDS = {
    "convolution": nn.Sequential(conv(padding=1), norm()),
    "with a bias that is there, in groups": nn.Sequential(conv(groups=2, bias=False), norm(), conv(groups=4), norm()),
    "transposed": nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), norm(6)),
    "transposed in groups": nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), norm(6)),
    "mirrored border": nn.Sequential(norm(), conv(padding=1, padding_mode="reflect")),
    "norm without scale": nn.Sequential(conv(), norm(affine=False)),
    "into what follows": nn.Sequential(nn.ReLU(), norm(), conv(groups=2, bias=False)),
    "norm after norm": nn.Sequential(nn.ReLU(), norm(affine=False), norm(), nn.ReLU()),
    "through pooling": nn.Sequential(conv(), nn.AvgPool2d(3, 2), norm(), nn.ReLU()),
    "through means that count no padding": nn.Sequential(
        conv(), nn.AvgPool2d(3, 1, 1, count_include_pad=False), norm(), nn.ReLU()
    ),
    "through resizing": nn.Sequential(conv(), nn.UpsamplingBilinear2d(scale_factor=2), norm(), nn.ReLU()),
    "linear": nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5)),
    "linear after pooling": nn.Sequential(
        nn.ReLU(), norm(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False)
    ),
    "into two branches": nn.Sequential(Joined(conv(out=6), conv(), norm(10)), nn.ReLU()),
    "of one branch into what joins them": Joined(nn.Sequential(nn.ReLU(), norm()), nn.ReLU(), conv(1, into=8)),
    "timm's with an activation": nn.Sequential(conv(), BatchNormAct2d(4), conv()),
}


@pytest.mark.parametrize("case", FOLDS)
def test_folds_exactly(case):
    module = drawn(copy.deepcopy(FOLDS[case]))
    folded, found = fold(module, torch.rand(2, 4, 9, 11, dtype=torch.float64))
    # Of two norms in a row the first takes the second in, and has nothing before it.
    expected = 1 if case == "norm after norm" else norms(module)
    assert len(found.folded) == expected
    assert len(found.folded) + len(found.left) == norms(module)
    assert norms(folded) == len(found.left)


STAYS = {
    "zeros at the border": (nn.Sequential(norm(), conv(padding=1)), "padded or transposed convolution"),
    "an activation between": (nn.Sequential(nn.ReLU(), norm(), nn.ReLU(), conv()), "its output goes into relu"),
    "means with padding": (nn.Sequential(conv(), nn.AvgPool2d(3, 1, 1), norm()), "its input comes from avg_pool2d"),
    "a transposed convolution after": (nn.Sequential(norm(), nn.ConvTranspose2d(4, 4, 2, 2)), "transposed"),
    "statistics of the batch": (nn.Sequential(conv(), norm(track_running_stats=False)), "keeps no running statistics"),
    "maxima": (nn.Sequential(conv(), nn.MaxPool2d(2), norm()), "comes from max_pool2d"),
}


@pytest.mark.parametrize("case", STAYS)
def test_stays_where_it_would_not_be_exact_and_says_why(case):
    module, reason = STAYS[case]
    folded, found = fold(drawn(copy.deepcopy(module)), torch.rand(2, 4, 9, 11, dtype=torch.float64))
    assert found.folded == ()
    (message,) = found.left.values()
    assert reason in message
    assert [type(part) for part in folded] == [type(part) for part in module]


class Twice(nn.Module):
    """A convolution whose result is normalised and read once more, as ``how`` says."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.norm = conv(padding=1), norm()

    def forward(self, x):
        y = self.conv(x)
        if self.how == "sum":
            return F.relu(self.norm(y)) + y
        if self.how == "again":
            return self.norm(y) + self.conv(F.relu(x))
        if self.how == "both":
            return self.norm(y) + self.norm(self.conv(F.relu(x)))
        y[:, :1].mul_(2.0)  # writes into what the norm reads, through a view
        return self.norm(y)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("sum", "read elsewhere"), ("again", "more than once"), ("both", "runs more than once"), ("view", "from mul_")],
)
def test_stays_where_another_reads_the_same(how, reason):
    _, found = fold(drawn(Twice(how)), torch.rand(2, 4, 9, 11, dtype=torch.float64))
    assert reason in found.left["norm"]


def test_what_the_network_returns_is_kept():
    module = drawn(nn.Sequential(conv(), norm(), nn.ReLU()))
    middle = []
    module[0].register_forward_hook(lambda _, __, out: middle.append(out))
    found = fold_norms(module, lambda: [module(torch.rand(1, 4, 9, 9, dtype=torch.float64)), middle[-1]])
    assert "read elsewhere" in found.left["1"]


def test_a_fold_by_hand():
    """y = 3 (2 x - 1) / sqrt(3 + 1) + 5 = 3 x + 3.5."""
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1.0)).eval()
    with torch.no_grad():
        for value, number in zip(
            (module[0].weight, module[1].weight, module[1].bias, module[1].running_mean, module[1].running_var),
            (2.0, 3.0, 5.0, 1.0, 3.0),
            strict=True,
        ):
            value.fill_(number)
    fold_norms(module, lambda: [module(torch.rand(1, 1, 4, 4))])
    assert module[0].weight.item() == 3.0
    assert module[0].bias.item() == 3.5


def test_values_change_with_everything_that_shares_their_memory():
    whole = torch.zeros(2, 3)
    part = whole[0]
    with Dataflow(nn.Module()) as flow:
        before = flow.value(whole), flow.value(part)
        part.add_(1.0)
        after = flow.value(whole), flow.value(part)
    assert not set(before) & set(after)
    assert [call.name for call in flow.calls] == ["add_"]
    assert flow.maker[after[0]] is flow.maker[after[1]] is flow.calls[0]
    assert flow.readers == {before[1]: [flow.calls[0]]}
