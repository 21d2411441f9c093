"""Connecting to Ray."""

import pytest

from hardy.errors import InputError
from hardy.studies.cluster import cluster

ray = pytest.importorskip("ray")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, r"^Ray did not start on this machine \(The current node timed out\); .* finished cells stay finished$"),
        ("1.2.3.4:6379", r"^--address 1.2.3.4:6379: no Ray cluster answers \(The current node timed out\)"),
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
