"""Which output of a module is the logits: one answer for all."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from hardy.errors import InputError
from hardy.ops.returned import logits_in, logits_of, tensors_in

A, B = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    "result",
    [
        A,
        [A, B],
        ((A,), B),
        {"aux": B, "out": A},
        {"aux": B, "logits": A},
        OrderedDict(first=A, second=B),
        {"out": [A, B]},
        SimpleNamespace(logits=A),
        SimpleNamespace(logits=(A, B)),
        [{"aux": B, "out": A}],
    ],
)
def test_the_logits_are_found(result):
    assert logits_in(result) is A
    assert logits_of(result, "a module") is A
    assert any(one is A for one in tensors_in(result))


@pytest.mark.parametrize("result", [None, "logits", [], {}, {"out": None, "aux": A}, SimpleNamespace(other=A)])
def test_where_there_are_none_the_type_is_named(result):
    assert logits_in(result) is None
    with pytest.raises(InputError, match=f"a module must return logits: .* returned {type(result).__name__}$"):
        logits_of(result, "a module")


def test_all_tensors_in_their_order():
    assert [int(one) for one in tensors_in({"x": [A, {"y": B}], "z": (B, None)})] == [0, 1, 1]
    assert tensors_in(None) == []
