"""The table of prototypes: written and read again; what is damaged or of another network is refused in one line."""

import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from one_norm_network import OneNorm
from torch import nn

from hardy.adaptation.bn_domains import BNDomains
from hardy.deployment.export import export
from hardy.deployment.prototypes import described, measured, table_of
from hardy.deployment.runner import PrototypeTable, Runner, constant, read_table, write_table
from hardy.errors import InputError

NORMS = {"one": 2, "two": 1}
ROWS = {
    "source": np.array([[0, 1, 2], [1, 4, 9]], np.float32),
    "night": np.array([[5, 6, 7], [0, 2, 3]], np.float32),
}
COUNTS = {"source": 0, "night": 7}


def table(**changes):
    return PrototypeTable(**{"norms": NORMS, "rows": ROWS, "counts": COUNTS, **changes})


def test_a_table_is_read_as_it_was_written(tmp_path):
    write_table(tmp_path / "t.safetensors", table())
    again = read_table(tmp_path / "t.safetensors")
    assert (again.norms, again.counts, again.domains) == (NORMS, COUNTS, ("night",))
    assert all(np.array_equal(again.rows[name], ROWS[name]) for name in ROWS)
    assert os.listdir(tmp_path) == ["t.safetensors"]


def test_other_readers_of_safetensors_read_it(tmp_path):
    from safetensors.numpy import load_file

    write_table(tmp_path / "t.safetensors", table())
    assert np.array_equal(load_file(tmp_path / "t.safetensors")["prototypes"], np.stack(list(ROWS.values())))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": {"night": ROWS["night"]}, "counts": {"night": 1}}, "no row 'source'"),
        ({"counts": {"source": 0}}, "rows without a count"),
        ({"norms": {"one": 2}}, r"float32 \(2, 2\) is needed"),
        ({"norms": {"one": 2, "two": True}}, "no batch norms with their channels"),
        ({"rows": {**ROWS, "night": ROWS["night"].astype(np.float64)}}, "float64"),
        ({"rows": {**ROWS, "night": -ROWS["night"]}}, "a variance is below 0"),
        ({"rows": {**ROWS, "night": ROWS["night"] * np.float32("nan")}}, "not finite"),
        ({"counts": {**COUNTS, "night": -1}}, "count -1"),
        ({"rows": {**ROWS, "": ROWS["night"]}, "counts": {**COUNTS, "": 1}}, "not a name"),
    ],
)
def test_values_that_are_no_prototypes_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        table(**changes)


def damaged(tmp_path, *, data=b"", **changes):
    """A file whose header and table have these values."""
    write_table(tmp_path / "t.safetensors", table())
    text = (tmp_path / "t.safetensors").read_bytes()
    length = int.from_bytes(text[:8], "little")
    header = json.loads(text[8 : 8 + length])
    stored = json.loads(header["__metadata__"]["table"])
    for name, value in changes.items():
        (stored if name in stored else header["prototypes"] if name in header["prototypes"] else header)[name] = value
    header["__metadata__"]["table"] = json.dumps(stored)
    head = json.dumps(header).encode()
    (tmp_path / "t.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + text[8 + length :] + data)
    return tmp_path / "t.safetensors"


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2**40, 2, 3]},
        {"shape": [2, 2, 4]},
        {"dtype": "F64"},
        {"data_offsets": [0, 4]},
        {"data": b"more"},
        {"domains": ["source"]},
        {"domains": ["source", "source"]},
        {"domains": ["source", 5]},
        {"domains": 3},
        {"norms": {"one": 2**40, "two": 1}},
        {"norms": {"one": -1, "two": 4}},
        {"norms": []},
        {"counts": [0]},
        {"counts": [0, 0.5]},
        {"other": {}},
    ],
    ids=str,
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, changes):
    with pytest.raises(ValueError, match=r"t\.safetensors: is not a table of prototypes \(") as refused:
        read_table(damaged(tmp_path, **changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"[]", b"[" * 9000, b"\0" * 64])
def test_a_file_that_is_no_table_is_refused(tmp_path, data):
    (tmp_path / "t.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.safetensors: is not a table of prototypes \("):
        read_table(tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        read_table(tmp_path / "none.safetensors")


def test_the_mean_over_the_images_of_each_domain():
    network = OneNorm(nn.BatchNorm2d(3)).eval()
    dark, light = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    found = measured(network, {"dark": [dark], "both": [dark, light]})
    assert found.rows["dark"].tolist() == [[0.0] * 3, [0.0] * 3]
    assert found.rows["both"].tolist() == [[0.5] * 3, [0.0] * 3]  # the mean of the images' variances
    assert found.rows["source"].tolist() == [[1.0] * 3, [4.0] * 3]
    assert found.counts == {"source": 0, "dark": 1, "both": 2}
    with pytest.raises(InputError, match="empty: has no image to measure"):
        measured(network, {"empty": []})


def test_the_table_of_a_network_that_adapts():
    network = OneNorm(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    live = BNDomains(network)
    live.enter("a")
    live(torch.rand(1, 3, 4, 4))
    found = table_of(network, live.table())
    expected = np.concatenate([one["a"].numpy() for one in live.table().values()], 1)
    assert np.array_equal(found.rows["a"], expected)
    assert found.counts["a"] == 100
    with pytest.raises(InputError, match=r"prototypes: norm 'parts\.2' is not in both the table and the network"):
        table_of(OneNorm(nn.BatchNorm2d(3)), live.table())
    with pytest.raises(InputError, match=r"prototypes: 'a' has no statistics \(2, 3\) of norm 'parts\.0'"):
        table_of(network, {name: {"a": torch.ones(2, 4)} for name in live.table()})
    with pytest.raises(InputError, match="prototypes: a: a mean or variance is not finite"):
        table_of(network, {name: {"a": -torch.ones(2, 3)} for name in live.table()})


def test_an_export_refuses_what_does_not_go_together(tmp_path):
    network, file = OneNorm(nn.Conv2d(3, 11, 1), nn.BatchNorm2d(11)).eval(), tmp_path / "net.onnx"
    given = measured(network, {"day": [torch.rand(1, 3, 8, 8)]})
    for reason, changes in {
        "there is no statistics 'input'; there are: fixed, inputs, observed": {"statistics": "input"},
        "statistics 'observed' works at one image size": {"statistics": "observed", "dynamic": True},
        "prototypes are for statistics that can change": {"prototypes": given},
        "the table is of another network": {"statistics": "inputs", "prototypes": table()},
    }.items():
        with pytest.raises(InputError, match=reason):
            export(network, file, size=(8, 8), **changes)
    folded = OneNorm(nn.Conv2d(3, 11, 1)).eval()
    with pytest.raises(InputError, match="and the network has none; use a network whose batch norms are not"):
        export(folded, file, size=(8, 8), statistics="inputs")
    assert list(tmp_path.iterdir()) == []


def graph(folder, description=None):
    """A file with the outputs ``images + statistics[0]``, and its bytes; described as ``description``."""
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    named = [
        make.make_tensor_value_info(name, float32, shape) for name, shape in (("images", [3]), ("statistics", [2, 3]))
    ]
    nodes = [
        make.make_node("Gather", ["statistics", "first"], ["mean"], axis=0),
        make.make_node("Add", ["images", "mean"], ["out"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array(0), "first"),
        onnx.numpy_helper.from_array(ROWS["source"], "statistics"),
    ]
    out = make.make_tensor_value_info("out", float32, [3])
    opset = [make.make_opsetid("", 18)]
    model = make.make_model(make.make_graph(nodes, "g", named, [out], constants), opset_imports=opset, ir_version=10)
    if description is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "hardy", json.dumps(description)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_an_input_becomes_a_constant(tmp_path):
    fixed = constant(graph(tmp_path).read_bytes(), ROWS["night"])
    onnx.checker.check_model(onnx.load_from_string(fixed))
    session = onnxruntime.InferenceSession(fixed)
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert session.get_overridable_initializers() == []
    assert session.run(None, {"images": np.ones(3, np.float32)})[0].tolist() == [6, 7, 8]


def test_the_runner_refuses_files_and_names_that_do_not_fit(tmp_path):
    own = {"statistics": "inputs", **described(None, table())}
    write_table(tmp_path / "net.prototypes.safetensors", table())
    runner = Runner(graph(tmp_path, own))
    ones = np.ones(3, np.float32)
    runner.use({"night": 1, "source": 1})
    assert runner(ones).tolist() == [3.5, 4.5, 5.5]
    runner.use("night", fuse=False)
    assert runner(ones).tolist() == [6, 7, 8]
    for name, reason in {"fog": "there is no prototype of 'fog'; there are: source, night"}.items():
        with pytest.raises(ValueError, match=reason):
            runner.use(name)
    for weights in ({}, {"night": 0}, {"night": -1}, {"night": float("nan")}, {"night": float("inf")}):
        with pytest.raises(ValueError, match="weight"):
            runner.use(weights)
    with pytest.raises(ValueError, match="observes no statistics; export it with --statistics observed"):
        runner.adapt(ones, "night")
    with pytest.raises(ValueError, match="observes no statistics"):
        Runner(tmp_path / "net.onnx", observed=tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"momentum 0\.0"):
        Runner(tmp_path / "net.onnx", momentum=0.0)
    for description, reason in (
        (None, "its statistics are fixed"),
        ({"statistics": "fixed"}, "its statistics are fixed"),
        ({**own, "source": "0"}, "the table of prototypes is of another network"),
        ({**own, "norms": {"two": 1, "one": 2}}, "the table of prototypes is of another network"),
    ):
        with pytest.raises(ValueError, match=reason):
            Runner(graph(tmp_path, description))
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"net\.onnx: cannot be read"):
        Runner(tmp_path / "net.onnx")
