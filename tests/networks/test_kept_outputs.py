"""The cache of a teacher's logits: the bits of a teacher without one, never of another image or teacher."""

import logging

import pytest
import torch

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.kept_outputs import OWN, KeptOutputs, name_of
from hardy.networks.building.teacher import Teacher
from hardy.seed import seeded

ABOUT = ("a" * 64, ["camvid"], {"precision": "fp32"})


def kept(folder, *about, most=10**7):
    teacher, data, settings = about or ABOUT
    return KeptOutputs(folder, teacher, data, settings, most=most)


def drawn(kind="scenes"):
    with seeded(0, "kept"):
        name, options = ("tiny", {"width": 8}) if kind == "scenes" else ("classifier", {"encoder": "test_resnet"})
        return create(name, "camvid11", **options).eval()


def images(count=2, seed=1):
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


class Counting(Teacher):
    """A teacher that counts how often its network runs."""

    ran = 0

    def _computed(self, images):
        self.ran += 1
        return super()._computed(images)


@pytest.mark.parametrize("kind", ["scenes", "pictures"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("size", [None, (64, 64)])
def test_it_gives_the_same_bits_and_computes_once(tmp_path, kind, precision, size):
    network = drawn(kind)
    wanted = Teacher(network, precision, size=size).outputs(images())
    teacher = Counting(network, precision, size=size, kept=kept(tmp_path))
    for _ in range(2):
        found = teacher.outputs(images())
        assert torch.equal(found.logits, wanted.logits)
        assert wanted.coarse is None if kind == "pictures" else torch.equal(found.coarse, wanted.coarse)
        assert not found.features
    assert teacher.ran == 1
    assert not teacher.gives_features
    again = Counting(network, precision, size=size, kept=kept(tmp_path))
    assert torch.equal(again.outputs(images().flip(0)).logits, wanted.logits.flip(0))
    assert again.ran == 0, "another run, and another order"
    again.outputs(images(seed=2))
    assert again.ran == 1, "other images"


def test_a_name_is_of_values_shape_and_type():
    image = images(1)[0]
    other = image.clone()
    other[0, 0, 0] += 1e-6
    same = image.clone().contiguous(memory_format=torch.contiguous_format)
    names = {
        name_of(image),
        name_of(other),
        name_of(image.double()),
        name_of(image.flip(-1)),
        name_of(image.view(3, 48, 32)),
    }
    assert len(names) == 5
    assert name_of(same) == name_of(image) == name_of(image[None].to(memory_format=torch.channels_last)[0])


def test_another_teacher_and_other_data_are_refused_in_one_line(tmp_path):
    kept(tmp_path)
    kept(tmp_path, "a" * 64, ["camvid", "camvid"], {"precision": "bf16"})
    with pytest.raises(InputError, match=r"teacher\.cache_folder: .* of another teacher \(aaaaaaaaaaaa, not bbbbbb"):
        kept(tmp_path, "b" * 64, ["camvid"], {})
    with pytest.raises(InputError, match=r"teacher\.cache_folder: .* for other data \(camvid, not camvid, pictures\)"):
        kept(tmp_path, "a" * 64, ["camvid", "pictures"], {})
    for text in ("[]", '{"format": "x"}', '{"format": "hardy-teacher/0", "teacher": "a", "data": []}'):
        (tmp_path / OWN / "about.json").write_text(text)
        with pytest.raises(InputError, match=r"about\.json in it is damaged or of another version; remove"):
            kept(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        kept(tmp_path / "file")


def test_other_settings_have_other_outputs(tmp_path):
    kept(tmp_path).write("ab", "logits", torch.ones(3))
    assert kept(tmp_path, "a" * 64, ["camvid"], {"precision": "bf16"}).read("ab") is None
    assert kept(tmp_path).read("ab")[0] == "logits"


def test_every_damaged_byte_and_every_cut_count_as_absent(tmp_path):
    cache = kept(tmp_path)
    cache.write("ab", "logits", torch.arange(3.0))
    (file,) = (path for path in tmp_path.rglob("ab") if path.is_file())
    data = file.read_bytes()
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert cache.read("ab") is None
    for end in (0, 5, 16, 20, len(data) - 1):
        file.write_bytes(data[:end])
        assert cache.read("ab") is None
    file.write_bytes(data)
    assert torch.equal(cache.read("ab")[1], torch.arange(3.0))
    (file.parent / "abc").write_bytes(data)
    assert cache.read("abc") is None, "a file under another image's name"


def test_a_damaged_one_is_computed_again_and_replaced(tmp_path):
    teacher = Counting(drawn(), "fp32", kept=kept(tmp_path))
    wanted = teacher.outputs(images()).logits
    for file in (path for path in tmp_path.rglob("*") if path.is_file() and len(path.name) == 32):
        file.write_bytes(b"torn")
    assert torch.equal(teacher.outputs(images()).logits, wanted)
    assert torch.equal(teacher.outputs(images()).logits, wanted)
    assert teacher.ran == 2


def test_it_never_takes_more_bytes_than_allowed(tmp_path, caplog):
    teacher = Counting(drawn(), "fp32", kept=kept(tmp_path, most=9000))
    with caplog.at_level(logging.WARNING, logger="hardy"):
        for seed in range(6):
            teacher.outputs(images(1, seed))
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if len(path.name) == 32)
    assert 0 < taken <= 9000
    assert [record.message.split(", because")[0] for record in caplog.records] == [
        f"{tmp_path / OWN}: no more outputs of the teacher are kept"
    ]
    assert torch.equal(teacher.outputs(images(1, 5)).logits, Teacher(drawn(), "fp32").outputs(images(1, 5)).logits)
