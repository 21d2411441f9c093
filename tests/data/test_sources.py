"""References become domains; domains become training and validation items."""

import numpy as np
import pytest
from PIL import Image

from hardy.data.base import Dataset, Domain
from hardy.data.label_spaces import SPACES
from hardy.data.sources import data_root, domains, holdout, leave_one_out, sources
from hardy.errors import InputError


class Nothing(Dataset):
    """Items without images."""

    label_space = SPACES["camvid11"]

    def index(self):
        return {}

    def read(self, item):
        return np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)


def domain(name="d/x", **splits):
    return Domain(name, Nothing(), {split: tuple(items) for split, items in splits.items()})


@pytest.fixture
def root(tmp_path):
    for split, name in (("train", "A_1"), ("val", "A_2"), ("train", "B_1")):
        for folder in (split, f"{split}annot"):
            path = tmp_path / "camvid" / "CamVid" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(path)
    return tmp_path


def names(found):
    return [d.name for d in found]


def test_references(root):
    assert names(domains(["camvid/B", "camvid/A"], root=root)) == ["camvid/B", "camvid/A"]
    assert names(domains(["camvid"], root=root)) == names(domains(["camvid/*"], root=root)) == ["camvid/A", "camvid/B"]
    first = domains(["camvid/A"], root=root)[0]
    assert {split: len(items) for split, items in first.splits.items()} == {"train": 1, "val": 1}
    assert [path.name for path, _ in first.items()] == ["A_1.png", "A_2.png"]
    assert [path.name for path, _ in first.items("val")] == ["A_2.png"]


def test_a_dataset_is_built_once_and_may_have_a_root_of_its_own(root, tmp_path_factory):
    a, b = domains(["camvid/A", "camvid/B"], root=root)
    assert a.dataset is b.dataset
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(InputError, match="no CamVid here"):
        domains(["camvid"], root=elsewhere)
    options = {"camvid": {"root": str(root)}}
    assert names(domains(["camvid/A"], root=elsewhere, options=options)) == ["camvid/A"]
    assert options == {"camvid": {"root": str(root)}}


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        ([], {}, "no data named"),
        (["camvd/A"], {}, "no dataset 'camvd'; did you mean 'camvid'"),
        (["camvid/AA"], {}, "camvid has no domain 'AA'; did you mean 'A'\\?; it has: A, B"),
        (["camvid", "camvid/A"], {}, "'camvid/A' is named twice"),
        (["camvid"], {"camvid": {"speed": 3}}, "CamVid has no option 'speed'"),
    ],
)
def test_references_that_name_nothing(root, references, options, message):
    with pytest.raises(InputError, match=message) as error:
        domains(references, root=root, options=options)
    assert "\n" not in str(error.value)


def test_holdout_is_a_seeded_partition_in_order():
    whole = domain(train=range(60), test=range(60, 100))
    train, val = holdout(whole, share=0.1, seed=3)
    assert len(val) == 10
    assert sorted(train + val) == list(range(100))
    assert list(train) == sorted(train)
    assert list(val) == sorted(val)
    assert holdout(whole, share=0.1, seed=3) == (train, val)
    assert holdout(whole, share=0.1, seed=4)[1] != val
    assert holdout(domain("d/y", all=range(100)), share=0.1, seed=3)[1] != val


@pytest.mark.parametrize(("count", "share", "held"), [(2, 0.1, 1), (2, 0.99, 1), (15, 0.1, 2), (701, 0.1, 70)])
def test_both_parts_have_at_least_one_image(count, share, held):
    train, val = holdout(domain(all=range(count)), share=share, seed=0)
    assert (len(train), len(val)) == (count - held, held)


def test_what_cannot_be_split():
    with pytest.raises(InputError, match="d/x: it has 1 image, too few"):
        holdout(domain(all=[1]))
    for share in (0, 1, -0.1):
        with pytest.raises(InputError, match="share of held-out images"):
            holdout(domain(all=range(9)), share=share)
    with pytest.raises(InputError, match="d/x: has no split 'val', only train, test"):
        sources([domain(train=[1], test=[2])], split="given")


def test_sources():
    given = domain(train=[1, 2], val=[3], test=[4])
    (found,) = sources([given], split="given")
    assert (found.domain, found.train, found.val) == (given, (1, 2), (3,))
    (found,) = sources([given], share=0.25, seed=1)
    assert (len(found.train), len(found.val)) == (3, 1)


def test_leave_one_out():
    chosen = [domain(name, all=[1]) for name in "abc"]
    rounds = [(names(rest), unseen.name) for rest, unseen in leave_one_out(chosen)]
    assert rounds == [(["b", "c"], "a"), (["a", "c"], "b"), (["a", "b"], "c")]
    with pytest.raises(InputError, match="at least two"):
        list(leave_one_out(chosen[:1]))


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.delenv("HARDY_DATA", raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert str(data_root()) == "data"
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_root().resolve() == (tmp_path / "shared" / "data").resolve()
    monkeypatch.setenv("HARDY_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert str(data_root("there")) == "there"
