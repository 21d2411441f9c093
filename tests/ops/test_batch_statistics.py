"""Batch norms with other statistics, by hand and against torch's own; what is recorded; what stays as it was."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, LayerNorm2d
from torch import nn
from torch.nn import functional as F

from hardy.blocks.pooled_norm import PooledNorm
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops import batch_statistics as stats
from hardy.seed import seeded


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_norm(mean=1.0, var=4.0):
    net = nn.Sequential(nn.BatchNorm2d(1, eps=1e-12))
    net[0].running_mean.fill_(mean)
    net[0].running_var.fill_(var)
    return net.eval()


def test_the_moments_are_those_of_numpy():
    x = 5 + 3 * noise(2, 4, 3, 5)
    of_channels = x.double().numpy().transpose(1, 0, 2, 3).reshape(4, -1)
    wanted = torch.tensor([of_channels.mean(1).tolist(), of_channels.var(1).tolist()])
    torch.testing.assert_close(stats.moments(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stats.moments(x.movedim(1, -1), 3), wanted, rtol=1e-5, atol=1e-5)
    assert stats.moments(x.half()).dtype == torch.float32


def test_each_mode_by_hand():
    """The values -1, 1, 3, 5 have mean 2 and biased variance 5; the source has mean 1 and variance 4."""
    net = one_norm()
    norms = list(stats.install(net).values())
    x = torch.tensor([-1.0, 1.0, 3.0, 5.0]).view(1, 1, 2, 2)

    def gave(mean, var):
        torch.testing.assert_close(net(x), (x - mean) / var**0.5)

    gave(1, 4)
    stats.use_batch(norms)
    gave(2, 5)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            stats.use_mixed(norms, alpha=0.25)
            gave(1.25, 4.25)
            stats.use_mixed(norms, count=12)  # 4 / (12 + 4)
            gave(1.25, 4.25)
    stats.use_given(norms, [torch.tensor([[3.0], [9.0]])])
    gave(3, 9)
    stats.use_mixed(norms, alpha=0.75, past=[torch.tensor([[6.0], [9.0]])])
    with stats.recording(norms) as found:
        gave(3, 6)
    assert found[0].tolist() == [[2.0], [5.0]]
    stats.use_source(norms)
    gave(1, 4)


@pytest.mark.parametrize("mode", ["batch", "mixed", "count"])
def test_where_there_is_one_value_the_sources_statistics_are_used_and_recorded(mode):
    net = one_norm()
    norms = list(stats.install(net).values())
    use = {
        "batch": lambda: stats.use_batch(norms),
        "mixed": lambda: stats.use_mixed(norms, alpha=0.5),
        "count": lambda: stats.use_mixed(norms, count=1),
    }
    use[mode]()
    with stats.recording(norms) as found:
        assert net(torch.full((1, 1, 1, 1), 7.0)).item() == 3.0
    assert found[0].tolist() == [[1.0], [4.0]]
    assert net(torch.tensor([5.0, 7.0]).view(2, 1, 1, 1)).flatten().tolist() != [2.0, 3.0]


def test_where_there_is_one_value_given_statistics_stay_whatever_the_weight_of_the_batch():
    net = one_norm()
    norms = list(stats.install(net).values())
    given, image = torch.tensor([[5.0], [1.0]]), torch.full((1, 1, 1, 1), 7.0)
    stats.use_given(norms, [given])
    alone = net(image)
    for weight in (0.0, 0.5, 1.0):
        stats.use_mixed(norms, alpha=weight, past=[given])
        with stats.recording(norms) as found:
            assert torch.equal(net(image), alone)
        assert torch.equal(found[0], given)


def test_gradients_flow_through_the_batchs_statistics():
    """Against the same formula in float64, differentiated by torch, for the input and for the recorded statistics."""
    x = noise(2, 3, 4, 4).double().requires_grad_()
    net = nn.Sequential(nn.BatchNorm2d(3)).double().eval()
    norms = list(stats.install(net).values())
    stats.use_mixed(norms, alpha=0.5)
    assert torch.autograd.gradcheck(net, (x,))
    assert torch.autograd.gradcheck(stats.moments, (x,))
    assert torch.autograd.gradcheck(lambda x: stats.moments(x, 3), (x,))
    with stats.recording(norms, gradient=True) as found:
        net(x)
    (by_mean,) = torch.autograd.grad(found[0][0].sum(), x, retain_graph=True)
    assert torch.allclose(by_mean, torch.full_like(x, 1 / 32))
    (by_var,) = torch.autograd.grad(found[0][1].sum(), x)
    assert torch.allclose(by_var, 2 * (x - x.mean((0, 2, 3), keepdim=True)) / 32)
    with stats.recording(norms) as found:
        net(x)
    assert not found[0].requires_grad


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(3), BatchNormAct2d(3), nn.SyncBatchNorm(3), nn.BatchNorm2d(3, affine=False)]
)
def test_batch_statistics_are_those_of_torch_in_training_with_the_activation(norm):
    x = noise(2, 3, 4, 5) + 2
    like = BatchNormAct2d(3) if isinstance(norm, BatchNormAct2d) else nn.BatchNorm2d(3)
    net = nn.Sequential(copy.deepcopy(norm)).eval()
    wanted = like.eval()(x)
    norms = list(stats.install(net).values())
    assert torch.equal(net(x), wanted)
    stats.use_batch(norms)
    torch.testing.assert_close(net(x), like.train()(x))
    assert norms[0].source.tolist() == [[0.0] * 3, [1.0] * 3]
    stats.use_batch(norms, momentum=0.1)  # as `like` did, which trained on this batch once
    net(x)
    torch.testing.assert_close(norms[0].source, torch.stack((like.running_mean, like.running_var)))


def test_layer_norms_are_recorded_on_either_side_of_the_channels():
    net = nn.ModuleDict({"last": nn.LayerNorm(3), "first": LayerNorm2d(3)})
    last, first = (net[name] for name in ("last", "first"))
    x = noise(2, 3, 4, 5)
    wanted = last(x.movedim(1, -1)), first(x)
    norms = stats.install(net)
    assert list(norms) == ["last", "first"]
    with stats.recording(list(norms.values())) as found:
        assert torch.equal(net["last"](x.movedim(1, -1)), wanted[0])
        assert torch.equal(net["first"](x), wanted[1])
    torch.testing.assert_close(found[0], stats.moments(x))
    torch.testing.assert_close(found[1], stats.moments(x))


def test_a_whole_network_computes_the_same_and_a_copy_is_its_own():
    with seeded(0, "network"):
        net = create("tiny", "camvid11", width=8).eval()
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    plain, wanted = copy.deepcopy(net), net(images)
    parameters = list(net.parameters())
    norms = stats.install(net)
    assert torch.equal(net(images), wanted)
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    assert list(norms) == [name for name, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert stats.install(net) == norms
    other = copy.deepcopy(net)
    stats.use_batch(norms.values())
    assert torch.equal(other(images), wanted)
    assert not torch.allclose(net(images), wanted)
    with stats.recording(list(norms.values()), gradient=True):
        net(images)
    copy.deepcopy(net)  # no graph is left in it
    for module in plain.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    torch.testing.assert_close(net(images), plain(images))


def test_a_norm_that_two_places_share_stays_one_and_one_without_statistics_stays():
    shared = nn.BatchNorm2d(2)
    net = nn.Sequential(shared, nn.Sequential(shared), nn.BatchNorm2d(2, track_running_stats=False))
    norms = stats.install(net)
    assert list(norms) == ["0"]
    assert net[0] is net[1][0]
    assert type(net[2]) is nn.BatchNorm2d
    with stats.recording(list(norms.values())) as found:
        net[1](noise(1, 2, 3, 3))
    torch.testing.assert_close(found[0], stats.moments(noise(1, 2, 3, 3)))
    with stats.recording(list(norms.values())) as found:
        pass
    assert torch.equal(found[0], norms["0"].source)


def test_a_recording_can_end_the_pass_after_its_norms():
    ran = []

    class Last(nn.Module):
        def forward(self, x):
            ran.append(x)
            return x

    net = nn.Sequential(nn.BatchNorm2d(2), nn.LayerNorm(3), Last())
    norms = list(stats.install(net).values())
    x = noise(1, 2, 3, 3)
    for some in (norms[:1], norms):
        with stats.recording(some, end=True) as found:
            net(x)
        assert not ran
        assert len(found) == len(some)
    net(x)
    assert len(ran) == 1
    with pytest.raises(RuntimeError), stats.recording(norms, end=True):
        net(noise(1, 5, 3, 3))


def test_a_network_without_batch_norms_is_refused_where_a_method_needs_them():
    with pytest.raises(InputError, match=r"^bn_stats adapts batch norms .* the network has none; use a network"):
        stats.batch_norms(stats.install(nn.Sequential(nn.LayerNorm(3))), "bn_stats")


@pytest.mark.parametrize("affine", [True, False])
def test_the_recorded_norm_and_its_statistics_have_the_gradients_of_both(affine):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.BatchNorm2d(3, affine=affine)).double()
    (norm,) = stats.install(layers).values()
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    pull, towards = torch.randn(4, 3, 5, 6, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)

    stats.use_batch([norm])
    with stats.recording([norm], gradient=True) as found:
        out = layers(x)
    assert torch.allclose(found[0], stats.moments(x), atol=1e-12)
    wanted = [x, *layers.parameters()]
    mine = torch.autograd.grad((out * pull).sum() + (found[0] - towards).square().sum(), wanted)

    weight, bias = norm.norm.weight, norm.norm.bias
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    plain = F.batch_norm(x, None, None, weight, bias, True, 0.0, norm.norm.eps)
    loss = (plain * pull).sum() + (torch.stack((mean, var)) - towards).square().sum()
    assert torch.equal(out, plain)
    assert all(torch.allclose(one, other) for one, other in zip(mine, torch.autograd.grad(loss, wanted), strict=True))


class WithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


class WithUnusedChild(nn.BatchNorm2d):
    def __init__(self, count):
        super().__init__(count)
        self.act = nn.ReLU()


def test_a_batch_norm_with_its_own_forward_pass_is_refused_and_children_run_only_where_the_class_runs_them():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(WithActivation(3)))
    with pytest.raises(
        InputError, match=r"^the batch norm '1\.0' is of the class WithActivation, whose own forward .*"
    ):
        stats.install(net)
    assert type(net[0]) is nn.BatchNorm2d
    assert list(stats.install(nn.Sequential(PooledNorm(3)))) == ["0"]
    net = nn.Sequential(WithUnusedChild(3)).eval()
    wanted = net(noise(1, 3, 2, 2))
    stats.install(net)
    assert torch.equal(net(noise(1, 3, 2, 2)), wanted)


def test_wrapped_norms_show_what_other_modules_read_and_a_transformer_layer_runs_recorded_norms():
    net = nn.ModuleList([nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.BatchNorm2d(3)]).eval()
    x = noise(2, 5, 4)
    wanted = net[0](x)
    norms = stats.install(net)
    with torch.no_grad():
        torch.testing.assert_close(net[0](x), wanted)
        with stats.recording(list(norms.values())) as found:
            torch.testing.assert_close(net[0](x), wanted)
    assert not torch.equal(found[1], norms["0.norm2"].source)
    assert torch.backends.mha.get_fastpath_enabled()
    for name in ("eps", "weight", "bias", "running_mean", "running_var", "num_features"):
        assert getattr(net[1], name) is getattr(net[1].norm, name)
    assert net[0].norm1.normalized_shape == (4,)


class OwnFirst(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class OwnLast(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x) + 1


class OwnAny(nn.LayerNorm):
    def forward(self, x):
        return x


@pytest.mark.parametrize("width", [5, 3])
@pytest.mark.parametrize(("kind", "axis"), [(OwnFirst, 1), (OwnLast, 3)])
def test_the_channels_of_a_layer_norm_with_its_own_forward_pass_are_found(kind, axis, width):
    net = nn.Sequential(kind(3, elementwise_affine=False))
    (norm,) = stats.install(net).values()
    x = noise(2, 3, 4, width) if axis == 1 else noise(2, width, 4, 3)
    with stats.recording([norm]) as found:
        net(x)
    torch.testing.assert_close(found[0], stats.moments(x, axis))
    assert norm.source.tolist() == [[0.0] * 3, [1.0] * 3]


def test_a_layer_norm_whose_channels_cannot_be_told_is_refused():
    net = nn.Sequential(OwnAny(3))
    (norm,) = stats.install(net).values()
    said = r"^the layer norm OwnAny over 3 channels got \(2, 3, 4, 3\): which axis"
    with pytest.raises(InputError, match=said), stats.recording([norm]):
        net(noise(2, 3, 4, 3))
