import pytest
import torch
from tuned_networks import attached, learn, logits, merging_error, small

import hardy
from hardy.engine import changes
from hardy.errors import InputError


def trained(kind: str, **options: object):
    """The network after training, its weights before and at the end of training, and what is left to do."""
    network = attached(small(kind), "wise_ft", **options)
    finish = changes.finishing(network)
    states = [{name: value.clone() for name, value in network.state_dict().items()}]
    learn(network)
    states.append({name: value.clone() for name, value in network.state_dict().items()})
    return network, *states, finish


def test_every_entry_of_the_encoder_is_the_average_by_the_formula() -> None:
    network, start, end, finish = trained("convolutions", alpha=0.25)
    finish()
    for name, value in network.state_dict().items():
        if name.startswith("body.") and not name.endswith("num_batches_tracked"):
            expected = 0.75 * start[name].double() + 0.25 * end[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7, msg=name)
            assert not torch.equal(value, end[name]), name
        else:
            assert torch.equal(value, end[name]), name
    assert {"body.1.running_mean", "body.1.running_var"} <= start.keys()


def test_the_decoder_is_averaged_on_request() -> None:
    network, start, end, finish = trained("plain", alpha=0.5, decoder=True)
    finish()
    for name in ("head.weight", "middle.1.running_var", "body.pos_embed"):
        torch.testing.assert_close(network.state_dict()[name], (start[name] + end[name]) / 2)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_of_the_range_have_the_bits_of_before_and_of_training(alpha: float) -> None:
    network, *states, finish = trained("convolutions", alpha=alpha, decoder=True)
    finish()
    wanted = states[int(alpha)]
    numbers = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    assert all(torch.equal(value, wanted[name]) for name, value in numbers.items())


def test_merging_is_exact_and_the_average_stays() -> None:
    network, *_, finish = trained("plain")
    finish()
    expected = logits(network)
    assert merging_error(network) == 0
    assert torch.equal(logits(network), expected)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^tuner.alpha: 1.5 is out of range; it must be from 0 to 1$"):
        attached(small("plain"), "wise_ft", alpha=1.5)
    tiny = hardy.create("tiny", "camvid11", width=8)
    with pytest.raises(InputError, match=r"^tuner: Tiny names no encoder"):
        attached(tiny, "wise_ft")
    assert tiny.changes == []
    attached(tiny, "wise_ft", decoder=True)
