"""What holds for every publication."""

import re

import pytest

from hardy.networks.published.base import Publication
from hardy.registry import NETWORKS, PUBLICATIONS


@pytest.fixture(params=PUBLICATIONS.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_it_says_what_it_is_of_and_where_its_names_come_from(name: str) -> None:
    publication: Publication = PUBLICATIONS.build(name)
    assert publication.network in NETWORKS
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", publication.repository)
    assert f"github.com/{publication.repository}" in PUBLICATIONS.describe(name).source
    assert publication.checked in ("files", "code", "names")
    assert publication.channels in ("RGB", "BGR")
    assert len(publication.signs) >= 2


def test_its_patterns_are_patterns_and_only_signs_of_places_it_has(name: str) -> None:
    publication: Publication = PUBLICATIONS.build(name)
    for old, new in publication.layers.items():
        assert re.compile(old).groups == len(set(re.findall(r"\\(\d)", new))), old
    for sign in publication.signs:
        plain = re.sub(r"\\\.", ".", sign).rpartition(".")[0]
        assert any(re.fullmatch(old, plain) for old in publication.layers), sign


def test_a_file_without_its_signs_is_not_its_own(name: str) -> None:
    publication: Publication = PUBLICATIONS.build(name)
    plain = [re.sub(r"\\\.", ".", sign) for sign in publication.signs]
    assert publication.recognises(plain)
    for place in range(len(plain)):
        assert not publication.recognises(plain[:place] + plain[place + 1 :])
