"""Images of a folder that is being filled come once, whole, in their order, and no more than a few at a time."""

import os

import pytest

from hardy.engine import arrivals
from hardy.engine.arrivals import Arrivals, Clock
from hardy.engine.pictures import Picture
from hardy.errors import InputError


class Scene:
    """A clock that moves only when something waits, and what happens at which second."""

    def __init__(self):
        self.time, self.plan, self.over = 0.0, [], 60.0

    def at(self, second, action):
        self.plan.append((second, action))

    def clock(self):
        return Clock(lambda: self.time, self._wait)

    def stopped(self):
        return self.time >= self.over

    def _wait(self, seconds):
        self.time += seconds
        for due in [one for one in self.plan if one[0] <= self.time]:
            self.plan.remove(due)
            due[1]()


@pytest.fixture
def scene():
    return Scene()


def put(path, data=b"whole", time=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if time is not None:
        os.utime(path, ns=(time, time))
    return path


def watch(scene, folder, **options):
    return Arrivals(folder, folder / "masks", stop=scene.stopped, clock=scene.clock(), **options)


def names(found):
    return [one[0] if isinstance(one, tuple) else one.name for one in found if one is not None]


def test_the_order_is_that_of_times_and_then_of_names(scene, tmp_path):
    for name, time in (("a.png", 3), ("c.png", 1), ("b.png", 1), ("sub/d.JPG", 2)):
        put(tmp_path / name, time=time)
    assert names(watch(scene, tmp_path, idle=5)) == ["b", "c", "sub/d", "a"]


def test_a_file_comes_when_it_has_stopped_growing(scene, tmp_path):
    file = put(tmp_path / "a.png", b"1", time=1)
    for second in range(1, 8):
        scene.at(second / 2, lambda second=second: put(file, b"1" * second, time=second))
    came = [scene.time for one in watch(scene, tmp_path, idle=5) if one is not None]
    assert len(came) == 1
    assert 3.5 + 1 <= came[0] < 3.5 + 2.5


def test_a_renamed_file_comes_under_its_last_name_only(scene, tmp_path):
    hidden = put(tmp_path / ".a.png.tmp")
    put(tmp_path / ".partial" / "b.png")
    scene.at(3, lambda: hidden.rename(tmp_path / "a.png"))
    assert names(watch(scene, tmp_path, idle=5)) == ["a"]


def test_a_file_that_changes_comes_again_and_one_that_stays_does_not(scene, tmp_path):
    file = put(tmp_path / "a.png", b"half", time=1)
    scene.at(4, lambda: put(file, b"the whole", time=2))
    assert names(watch(scene, tmp_path, idle=5)) == ["a", "a"]


def test_no_file_is_lost_and_few_are_taken_at_a_time(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MOST_TAKEN", 4)
    for place in range(10):
        put(tmp_path / f"{place}.png", time=place + 1)
    said, seen = [], []
    live = watch(scene, tmp_path, idle=5, say=said.append)
    lists = []
    monkeypatch.setattr(live, "_images", lambda own=live._images: lists.append(len(seen)) or own())
    for one in live:
        if one is not None:
            seen.append(one[0])
            if len(seen) == 2:  # older than all that wait: comes with the next list, once it has settled
                put(tmp_path / "late.png", time=1)
    assert seen == [*map(str, range(10)), "late"]
    assert 4 in lists
    assert 8 in lists
    assert said == [f"10 images wait in {tmp_path}: they stay there, and are taken 4 at a time"]
    assert (live.handed_on, live.waiting) == (11, 0)


def test_idle_counts_from_the_last_change_and_a_stop_ends_at_once(scene, tmp_path):
    put(tmp_path / "a.png", time=1)
    scene.at(8, lambda: put(tmp_path / "b.png", time=2))
    assert names(watch(scene, tmp_path, idle=10)) == ["a", "b"]
    assert 18 <= scene.time < 21
    scene.over = scene.time + 3
    live = watch(scene, tmp_path)
    taken = iter(live)
    assert next(taken) is None
    list(taken)
    assert scene.over <= scene.time < scene.over + 0.2


def test_masks_and_drawings_are_no_images_and_two_files_need_two_names(scene, tmp_path):
    for place, name in enumerate(("a.png", "a.jpg", "masks/b.png", "overlays/c.png", "notes.txt")):
        put(tmp_path / name, time=place + 1)
    found = [one for one in watch(scene, tmp_path, idle=5, drawn=("overlays",)) if one is not None]
    assert found[0] == ("a", tmp_path / "a.png")
    assert all(isinstance(one, Picture) for one in found[1:])
    assert found[1].reason == f"{tmp_path / 'a.jpg'}: its mask would have the same name as that of " + (
        f"{tmp_path / 'a.png'}; rename one of them"
    )
    assert "would be written among drawings" in found[2].reason
    assert len(found) == 3


def test_a_name_is_free_again_when_its_file_is_gone(scene, tmp_path):
    first = put(tmp_path / "a.png", time=1)
    scene.at(3, first.unlink)
    scene.at(5, lambda: put(tmp_path / "a.jpg", time=2))
    assert [type(one) for one in watch(scene, tmp_path, idle=5) if one is not None] == [tuple, tuple]


def test_a_folder_that_is_gone_is_named(scene, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    scene.at(2, folder.rmdir)
    with pytest.raises(InputError, match=r"in: can no longer be listed: No such file"):
        list(watch(scene, folder))
