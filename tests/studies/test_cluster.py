"""Connecting to Ray."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from hardy.errors import InputError
from hardy.studies.cluster import Job, Share, cluster, run
from hardy.studies.order import Order

ray = pytest.importorskip("ray")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, r"^Ray did not start on this machine \(The current node timed out\); .* finished cells stay finished$"),
        ("cluster", r"^--address cluster: no Ray cluster answers \(The current node timed out\)"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(
    address: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup")  # as Ray raises it

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(InputError, match=message), cluster(address):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: object) -> None:
        raise AssertionError("Ray would try for a quarter of an hour")

    monkeypatch.setattr(ray, "init", never)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    line = rf"^--address {address}: no Ray cluster answers \(.*[Rr]efused\); start one with ray start --head"
    with pytest.raises(InputError, match=line), cluster(address):
        pass


def test_a_place_that_answers_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with cluster(address) as started:
            assert started is ray
    assert asked == [address]


def test_a_run_that_is_done_already_is_not_started_and_those_after_it_are(tmp_path: Path) -> None:
    task = SimpleNamespace(remote=lambda words, *_: words)
    here = SimpleNamespace(
        remote=lambda **_: lambda _: task,
        cluster_resources=lambda: {"CPU": 1},
        wait=lambda running, **_: (running[:1], running[1:]),
        get=lambda _: 0,
        exceptions=ray.exceptions,
    )
    order = Order({"a": None, "b": "a", "c": None, "d": "c"})
    ran, left = list[str](), list[str]()

    def starts(name: str) -> bool:
        if name not in "bcd":
            ran.append(name)
        return name not in "bcd"

    run(
        here,
        {name: Job((name,), tmp_path / name) for name in "abcd"},
        order,
        Share(1, 0),
        limit=1,
        going=tmp_path / "going",
        starts=starts,
        ended=lambda name, *outcome: left.append(name),
        tick=lambda: None,
    )
    assert ran == ["a"]
    assert left == ["a", "b", "c", "d"]
    assert order.named("done") == ["a", "b", "c", "d"]
