"""What holds a frozen module sees nothing of it but its answers."""

import copy

import torch
from torch import nn

from hardy.ops.frozen import Frozen


class Holder(nn.Module):
    def __init__(self, teacher):
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.teacher = Frozen(teacher)


def test_it_is_no_part_of_what_holds_it():
    teacher = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    holder = Holder(teacher)
    assert set(holder.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(holder.parameters())) == 2
    assert not list(holder.teacher.buffers())
    holder.load_state_dict(holder.state_dict())
    holder.train()
    assert not holder.teacher.module.training
    rows = torch.randn(5, 3)
    out = holder.teacher(rows)
    assert not out.requires_grad
    assert torch.equal(out, holder.teacher(rows)), "no dropout, and no statistics that move"
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(out, copy.deepcopy(teacher).eval()(rows))


def test_it_moves_with_what_holds_it():
    holder = Holder(nn.BatchNorm1d(3)).double()
    assert holder.teacher(torch.randn(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert holder.to("meta").teacher.module.running_mean.device.type == "meta"


def test_a_copy_has_a_module_of_its_own():
    holder = Holder(nn.Linear(3, 3))
    twin = copy.deepcopy(holder)
    twin.double()
    assert holder.teacher.module.weight.dtype == torch.float32
