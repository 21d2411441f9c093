"""Connecting to Ray."""

import socket

import pytest

from hardy.errors import InputError
from hardy.studies.cluster import cluster

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
