"""Batches are a pure function of (seed, step, slot), balanced over domains; the check before the first step."""

from itertools import islice

import numpy as np
import pytest
import torch

from hardy.data.base import Dataset, Domain
from hardy.data.check import check_labels
from hardy.data.label_spaces import SPACES
from hardy.data.loader import evaluation_batches, step_slots, training_batches
from hardy.data.transforms import SceneAugmentation, evaluation, training
from hardy.errors import InputError

CITY = SPACES["cityscapes19"]
PLAIN = SceneAugmentation((6, 8), scale=(1, 1), flip=0, photometric=0)


class Drawn(Dataset):
    """Images of one colour: the item's number; the mask's first pixel says it too."""

    def __init__(self, space="cityscapes19", image_level=False, sizes=((6, 8),)):
        self.label_space = SPACES[space]
        self.image_level = image_level
        self.sizes = sizes

    def index(self):
        return {}

    def read(self, item):
        if item == 99:
            raise InputError("town/99.png: damaged or not an image; fetch it again")
        size = self.sizes[item % len(self.sizes)]
        label = np.array(item % 7) if self.image_level else np.full(size, item % len(self.label_space), dtype=np.uint8)
        return np.full((*size, 3), item, dtype=np.uint8), label


def domain(name, count, start=0, **options):
    return Domain(name, Drawn(**options), {"all": range(start, start + count)}), range(start, start + count)


DATA = [domain("a", 5), domain("b", 7, 20), domain("c", 4, 40)]


def batches(count=4, data=DATA, transform=PLAIN, **options):
    return list(islice(training_batches(data, CITY, transform, **{"batch": 8, "seed": 1} | options), count))


def same(one, other):
    return all(
        torch.equal(getattr(x, part), getattr(y, part))
        for x, y in zip(one, other, strict=True)
        for part in ("images", "labels", "domains")
    )


def items(found):
    return [[int(v) for v in (batch.images[:, 0, 0, 0] * 255).round()] for batch in found]


def test_a_batch():
    batch = batches(1)[0]
    assert batch.images.shape == (8, 3, 6, 8)
    assert batch.labels.shape == (8, 6, 8)
    assert (batch.labels.dtype, batch.domains.dtype) == (torch.int64, torch.int64)
    numbers = (batch.images[:, 0, 0, 0] * 255).round().long()
    assert torch.equal(batch.labels[:, 0, 0], numbers % 19)
    assert torch.equal(numbers // 20, batch.domains)


def test_shares_are_even_and_the_remainder_goes_round():
    counts = [torch.bincount(batch.domains, minlength=3).tolist() for batch in batches(6)]
    assert counts == [[3, 3, 2], [3, 2, 3], [2, 3, 3]] * 2
    singles = [int(batch.domains) for batch in batches(6, batch=1)]
    assert singles == [0, 1, 2, 0, 1, 2]


def test_each_epoch_of_a_domain_is_a_new_permutation_of_its_items():
    stream = [n for step in items(batches(30)) for n in step if 20 <= n < 27]
    epochs = [stream[i : i + 7] for i in range(0, len(stream) - 6, 7)]
    assert len(epochs) == 11
    assert all(sorted(epoch) == list(range(20, 27)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8


def test_a_domain_has_the_same_order_whatever_stands_beside_it():
    alone = [n for step in items(batches(6, data=DATA[1:2], batch=4)) for n in step]
    beside = [n for step in items(batches(8, batch=9)) for n in step if 20 <= n < 27]
    assert alone == beside


AUGMENTED = training((5, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"workers": 2}, {"cache": True}, {"workers": 1, "cache": True}],
    ids=["workers", "cache", "workers and cache"],
)
def test_workers_and_cache_change_no_bit(options):
    resized = {"transform": AUGMENTED, "resize": (10, 12)}
    assert same(batches(**resized), batches(**resized, **options))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_a_step_gives_the_bits_of_having_run_through(workers):
    whole = batches(7, transform=AUGMENTED)
    assert same(whole[3:], batches(4, transform=AUGMENTED, start=3, workers=workers))


def test_ranks_share_the_slots_of_a_step():
    whole = batches(transform=AUGMENTED)
    ranks = [batches(transform=AUGMENTED, rank=rank, processes=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            assert torch.equal(ranks[rank][step].images, batch.images[rank::2])
            assert torch.equal(ranks[rank][step].domains, batch.domains[rank::2])


def test_the_seed_decides_order_and_augmentation():
    assert items(batches(seed=1)) == items(batches(seed=1)) != items(batches(seed=2))
    one = [domain("a", 1, 60)]
    first, second = batches(2, data=one, transform=AUGMENTED, batch=1)
    assert not torch.equal(first.images, second.images)
    batch = batches(1, data=one, transform=AUGMENTED, batch=2)[0]
    assert not torch.equal(batch.images[0], batch.images[1])


def test_domains_of_one_size_have_orders_of_their_own():
    first = items(batches(1, data=[domain("a", 9)], batch=9))
    second = items(batches(1, data=[domain("b", 9)], batch=9))
    assert sorted(first[0]) == sorted(second[0])
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches(2, transform=AUGMENTED, workers=workers)
    list(evaluation_batches(DATA, CITY, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_image_fills_a_batch():
    assert items(batches(2, data=[domain("a", 1, 9)], batch=3)) == [[9, 9, 9]] * 2


def test_the_samples_of_a_far_step_need_no_earlier_one():
    slots = step_slots((("a", 1000), ("b", 3)), batch=7, seed=0, step=10**9)
    assert [one.slot for one in slots] == list(range(7))
    assert [one.domain for one in slots] in ([0] * 4 + [1] * 3, [0] * 3 + [1] * 4)


def test_labels_are_mapped_onto_the_wanted_space():
    for found in (
        batches(3, data=[domain("a", 19)], batch=19),
        list(evaluation_batches([domain("a", 19)], CITY, batch=19)),
    ):
        assert sorted(int(v) for v in found[0].labels[:, 0, 0]) == list(range(19))
    camvid = SPACES["camvid11"]
    batch = next(evaluation_batches([domain("a", 19)], camvid, batch=19))
    assert batch.labels[:, 0, 0].tolist() == [3, 4, 1, 7, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    trained = next(training_batches([domain("a", 19)], camvid, PLAIN, batch=19, seed=0))
    assert sorted(trained.labels[:, 0, 0].tolist()) == sorted(batch.labels[:, 0, 0].tolist())


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([], {}, "no data"),
        ([domain("a", 0)], {}, "a: it has no images"),
        (DATA, {"batch": 0}, "batch is 0"),
        (DATA, {"batch": 9, "processes": 2}, "batch 9 is not a multiple of 2 processes"),
        ([domain("p", 3, space="pacs7")], {}, "p: no map is declared from its classes 'pacs7' onto 'cityscapes19'"),
        ([DATA[0], domain("p", 3, image_level=True)], {}, "cannot share a run"),
    ],
)
def test_what_cannot_be_batched_is_refused_before_the_first_batch(data, options, message):
    with pytest.raises(InputError, match=message):
        training_batches(data, CITY, PLAIN, **{"batch": 4, "seed": 0} | options)
    if not options.get("processes"):
        with pytest.raises(InputError, match=message):
            evaluation_batches(data, CITY, **{"batch": 4} | options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_torn_file_arrives_as_one_line_from_any_process(workers):
    data = [domain("a", 14, 86)]
    for found in (
        training_batches(data, CITY, PLAIN, batch=14, seed=0, workers=workers),
        evaluation_batches(data, CITY, workers=workers),
    ):
        with pytest.raises(InputError) as error:
            list(islice(found, 20))
        assert str(error.value) == "town/99.png: damaged or not an image; fetch it again"


@pytest.mark.slow
def test_evaluation_takes_each_item_once_in_order():
    found = list(evaluation_batches(DATA, CITY, batch=3))
    assert items(found) == [[0, 1, 2], [3, 4], [20, 21, 22], [23, 24, 25], [26], [40, 41, 42], [43]]
    assert [batch.domains.tolist() for batch in found[:3]] == [[0] * 3, [0] * 2, [1] * 3]
    assert same(found, list(evaluation_batches(DATA, CITY, batch=3, workers=2)))


def test_evaluation_groups_by_size_and_keeps_masks_at_theirs():
    data = [domain("a", 6, sizes=((6, 8), (6, 8), (4, 4)))]
    native = list(evaluation_batches(data, CITY, batch=4))
    assert items(native) == [[0, 1], [2], [3, 4], [5]]
    resized = list(evaluation_batches(data, CITY, batch=4, resize=(3, 5)))
    assert [tuple(batch.images.shape[-2:]) for batch in resized] == [(3, 5)] * 4
    assert [tuple(batch.labels.shape[-2:]) for batch in resized] == [(6, 8), (4, 4)] * 2


def test_pictures():
    data = [domain("p", 5, space="pacs7", image_level=True)]
    batch = next(evaluation_batches(data, SPACES["pacs7"], batch=5))
    assert batch.labels.tolist() == [0, 1, 2, 3, 4]
    resized = training_batches(data, SPACES["pacs7"], evaluation(), batch=2, seed=0, resize=(4, 4))
    assert next(resized).images.shape == (2, 3, 4, 4)


# ------------------------------------------------------------------------------------- before the first step


class Labelled(Drawn):
    """One pixel of each id given, whatever the item; counts how often it was asked."""

    asked = 0

    def __init__(self, ids, drawn=False):
        super().__init__()
        self.ids = np.array([ids], dtype=np.uint8)
        self.drawn = drawn

    def read(self, item):
        self.asked += 1
        return np.zeros((1, self.ids.size, 3), dtype=np.uint8), self.ids


def labelled(ids, count=2, **options):
    dataset = Labelled(ids, **options)
    return Domain("a", dataset, {"all": range(count)}), range(count)


def test_pixels_are_counted_in_the_wanted_space():
    counts = check_labels([labelled([0, 0, 13, 14, 255])], SPACES["camvid11"])
    assert counts.tolist() == [0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    assert counts.dtype == np.int64
    pictures = [domain("p", 9, space="pacs7", image_level=True)]
    assert check_labels(pictures, SPACES["pacs7"]).tolist() == [2, 2, 1, 1, 1, 1, 1]


def test_a_label_that_is_no_class_of_its_dataset():
    with pytest.raises(InputError, match=r"^0: id 19 on 2 pixels is not a class"):
        check_labels([labelled([0, 19, 19])], CITY)


def test_all_pixels_ignored():
    with pytest.raises(InputError, match=r"^a: every pixel of every label is ignored"):
        check_labels([labelled([255, 255])], CITY)
    assert check_labels([labelled([255]), labelled([3])], CITY).sum() == 2


def test_torn_labels_and_missing_maps_are_found_before_training():
    with pytest.raises(InputError, match=r"town/99\.png"):
        check_labels([domain("a", 14, 86)], CITY)
    with pytest.raises(InputError, match="no map is declared"):
        check_labels([domain("p", 3, space="pacs7")], CITY)


def test_of_drawn_labels_a_few_stand_for_all():
    data = [labelled([1], count=1000, drawn=True)]
    check_labels(data, CITY)
    assert 0 < data[0][0].dataset.asked < 50
    data = [labelled([1], count=100)]
    check_labels(data, CITY)
    assert data[0][0].dataset.asked == 100


@pytest.mark.costly
def test_real_camvid_labels(real_data):
    from hardy.data.sources import domains

    data = [(d, d.items()) for d in domains(["camvid"], root=real_data)]
    counts = check_labels(data, SPACES["camvid11"])
    assert 0.9 * 701 * 360 * 480 < counts.sum() < 701 * 360 * 480
    assert counts.argmax() == SPACES["camvid11"].index("road")
    dusk = [data[0]]
    assert check_labels(dusk, SPACES["idd7"]).sum() == check_labels(dusk, SPACES["camvid11"]).sum()
