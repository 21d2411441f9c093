"""What holds for every teacher, be it a run, a pruned run or an ONNX file: it answers, and nothing else reaches it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import hardy
from hardy.deployment.export import export
from hardy.engine import teachers
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.sections import Teacher as Section
from hardy.seed import seeded

SIZE = (32, 48)
KINDS = ("run", "pruned", "onnx")


def drawn(classes: str = "camvid11") -> Network:
    with seeded(0, "teacher"):
        return create("tiny", classes, width=8, aux=True).eval()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder or file of a teacher of each kind."""
    folder = tmp_path_factory.mktemp("teachers")
    network = drawn()
    small = copy.deepcopy(network)
    units = find_units(small)
    remove(small, units, {unit.name: range(0, unit.size, 2) for unit in units})
    return {"run": hardy.save(network, folder / "run"), "pruned": hardy.save(small, folder / "pruned")}


@pytest.fixture(scope="module")
def files(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same, and ONNX files; whoever asks for them is costly, since exporting takes seconds."""
    made = {name: tmp_path_factory.mktemp("files") / f"{name}.onnx" for name in ("net", "fixed")}
    export(drawn(), made["net"], size=SIZE, dynamic=True, output="logits")
    export(drawn(), made["fixed"], size=SIZE, output="logits")
    return {**places, "onnx": made["net"], "fixed": made["fixed"]}


def section(kind: str, places: dict[str, Path], **more: str) -> Section:
    return Section(**{"run" if kind in ("run", "pruned") else "onnx": str(places[kind])}, **more)


@pytest.fixture(params=["run", "pruned", pytest.param("onnx", marks=pytest.mark.costly)])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def chosen(kind: str, request: pytest.FixtureRequest) -> Section:
    """The section of a teacher of that kind."""
    return section(kind, request.getfixturevalue("files" if kind == "onnx" else "places"))


@pytest.fixture
def teacher(chosen: Section) -> Teacher:
    return teachers.load(chosen)


def images(count: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


class Holder(nn.Module):
    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.own, self.teacher = nn.Linear(2, 2), teacher


@pytest.mark.costly
def test_it_gives_the_outputs_of_its_network(kind: str, teacher: Teacher, places: dict[str, Path]) -> None:
    found = teacher.outputs(images())
    wanted = hardy.load(places["run" if kind == "onnx" else kind]).outputs(images())
    assert not found.logits.requires_grad
    assert torch.equal(teacher(images()), found.logits)
    if kind == "onnx":
        torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
        assert not found.features
    else:
        assert torch.equal(found.logits, wanted.logits)
        assert found.features.keys() == wanted.features.keys() != set()
        assert all(torch.equal(value, wanted.features[name]) for name, value in found.features.items())
        assert not any(value.requires_grad for value in found.features.values())
    assert not [name for name in found.extras if name.startswith("aux_")], "a training head"


def test_it_says_what_it_predicts(teacher: Teacher) -> None:
    assert teacher.label_space.classes == drawn().label_space.classes
    assert not teacher.image_level


def test_it_is_no_part_of_its_holder(teacher: Teacher) -> None:
    holder = Holder(teacher)
    assert set(holder.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(holder.parameters())) == 2
    assert not list(teacher.buffers())
    holder.load_state_dict(holder.state_dict())


def test_nothing_trains_it(teacher: Teacher) -> None:
    wanted = teacher(images())
    holder = Holder(teacher)
    holder.train().requires_grad_(True)
    assert not teacher.training
    assert not any(module.training for module in teacher.network.modules())
    assert not any(value.requires_grad for value in teacher.network.parameters())
    seen = images().requires_grad_(True)
    assert torch.equal(teacher(seen), wanted), "neither dropout nor statistics of the batch"
    assert not teacher(seen).requires_grad


def test_it_follows_the_device_of_its_holder_and_keeps_its_dtype(teacher: Teacher) -> None:
    wanted = teacher(images())
    holder = Holder(teacher).double()
    assert holder.own.weight.dtype == torch.float64
    assert torch.equal(teacher(images()), wanted)
    assert teacher(images().double()).dtype == torch.float64
    holder.half()
    assert torch.equal(teacher(images()), wanted), "no bit was rounded on the way"
    holder.to("meta")
    assert {value.device.type for value in (teacher.network.mean, *teacher.network.state_dict().values())} == {"meta"}


def test_autocast_around_it_does_not_reach_it(kind: str, teacher: Teacher, places: dict[str, Path]) -> None:
    wanted = teacher.outputs(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher.outputs(images()).logits, wanted.logits)
    if kind == "onnx":
        return
    low = teachers.load(section(kind, places, precision="bf16"))
    found = low.outputs(images())
    assert found.logits.dtype == torch.float32
    assert {value.dtype for value in found.features.values()} == {torch.float32}
    assert {value.dtype for value in (found.coarse, found.embedding) if value is not None} <= {torch.float32}
    assert not torch.equal(found.logits, wanted.logits)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=0.1, atol=0.1)


def test_a_copy_answers_alike(teacher: Teacher) -> None:
    assert torch.equal(copy.deepcopy(teacher)(images()), teacher(images()))


def test_loading_draws_nothing(chosen: Section) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    teachers.load(chosen)
    assert torch.equal(torch.rand(2), wanted)


def test_without_a_precision_it_computes_as_the_code_around_it() -> None:
    network = drawn()
    teacher = Teacher(network)
    assert torch.equal(teacher(images()), network(images()))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        wanted = network(images())
        assert torch.equal(teacher(images()), wanted)


def test_the_network_given_stays_as_it_is() -> None:
    network = drawn().train()
    teacher = Teacher(network)
    assert network.training
    assert all(value.requires_grad for value in network.parameters())
    with torch.no_grad():
        network.head.weight.zero_()
    assert teacher(images()).std() > 0


# ------------------------------------------------------------------------------------------------- what is refused


def refusal(choice: Section) -> str:
    with pytest.raises(InputError) as caught:
        teachers.load(choice)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.costly
def test_a_file_takes_no_other_batch_or_size_than_it_was_exported_for(files: dict[str, Path]) -> None:
    teacher = teachers.load(section("fixed", files))
    assert teacher(images(1)).shape == (1, 11, *SIZE)
    for wrong, got in ((images(2), "2x32x48"), (images(1, (40, 48)), "1x40x48")):
        with pytest.raises(InputError, match=rf"fixed\.onnx: takes images 1x32x48 .*, not {got}; export it with"):
            teacher(wrong)
    with pytest.raises(InputError, match="takes RGB images"):
        teacher(images()[:, :1])


@pytest.mark.costly
def test_a_file_that_does_not_give_logits_or_say_of_what_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(files["onnx"])
    del model.metadata_props[1:]  # without its checksum, as an earlier Hardy wrote files
    (entry,) = model.metadata_props
    assert entry.key == "hardy"
    for text, said in (
        ("{", "its description is damaged"),
        ("[]", "its description is damaged"),
        (entry.value.replace('"output": "logits"', '"output": "classes"'), "returns 'classes' at upsample 'full', but"),
        (entry.value.replace('"upsample": "full"', '"upsample": "half"'), "returns 'logits' at upsample 'half', but"),
        ('{"output": "logits", "labels": {"name": "x"}}', "must have name, classes and colours"),
        (entry.value.replace('"sky", ', ""), "10 classes"),
    ):
        entry.value = text
        onnx.save(model, tmp_path / "x.onnx")
        line = refusal(Section(onnx=str(tmp_path / "x.onnx")))
        assert line.startswith(f"{tmp_path / 'x.onnx'}: ")
        assert said in line
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "x.onnx")
    assert "does not name the classes it predicts" in refusal(Section(onnx=str(tmp_path / "x.onnx")))


@pytest.mark.costly
def test_what_is_not_there_damaged_or_another_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    assert "no such file" in refusal(Section(onnx=str(tmp_path / "none.onnx")))
    (tmp_path / "torn.onnx").write_bytes(files["onnx"].read_bytes()[:999])
    assert "onnxruntime cannot read it" in refusal(Section(onnx=str(tmp_path / "torn.onnx")))
    assert refusal(Section(run=str(tmp_path / "none"))).startswith(f"teacher.run: {tmp_path / 'none'}: no network.json")
    for kind in KINDS:
        assert "holds other weights" in refusal(section(kind, files, sha256="0" * 64))


@pytest.mark.costly
def test_it_cannot_be_saved_or_pruned_as_a_network(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no description of its architecture"):
        hardy.save(teachers.load(section("onnx", files)).network, tmp_path / "run")
