"""Arguments of a Python call that cannot be used are refused in one line, by every verb alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import hardy
from hardy.errors import InputError

PLAIN = nn.Conv2d(3, 11, 1)
"""A module that is no network."""

PLAINLY: dict[str, Callable[[Path], Any]] = {
    "train": lambda _: hardy.train(PLAIN, data=["streets/sim"], steps=1),  # type: ignore[arg-type]
    "evaluate": lambda _: hardy.evaluate(PLAIN, data=["streets/sim"]),  # type: ignore[arg-type]
    "export": lambda place: hardy.export(PLAIN, place / "x.onnx", size=(64, 64)),  # type: ignore[arg-type]
    "bench": lambda _: hardy.bench(PLAIN, size=(64, 64)),  # type: ignore[arg-type]
    "predict": lambda place: hardy.predict(PLAIN, place, place / "masks"),  # type: ignore[arg-type]
    "quantize": lambda place: hardy.quantize(PLAIN, place / "x.onnx", size=(64, 64)),  # type: ignore[arg-type]
    "adapt": lambda _: hardy.adapt(PLAIN, "source"),  # type: ignore[arg-type]
    "save": lambda place: hardy.save(PLAIN, place / "run"),  # type: ignore[arg-type]
}


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("verb", PLAINLY)
def test_a_plain_module_is_refused_with_the_way_to_wrap_it(verb: str, tmp_path: Path) -> None:
    said = refusal(lambda: PLAINLY[verb](tmp_path))
    assert said.startswith("Conv2d is not a Network")
    assert "hardy.wrap(module, classes=...)" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 5, "a\0b"])
def test_a_path_is_text_without_nul(path: Any, tmp_path: Path) -> None:
    net = hardy.create("tiny", classes="camvid11")
    for call in (
        lambda: hardy.load(path),
        lambda: hardy.save(net, path),
        lambda: hardy.create("tiny", classes=path),
        lambda: hardy.export(net, path, size=(64, 64)),
        lambda: hardy.predict(net, path, tmp_path),
        lambda: hardy.predict(net, tmp_path, path),
        lambda: hardy.import_weights(path, "camvid11"),
    ):
        said = refusal(call)
        assert said in (
            f"{path!r} is not a path; give a text or a Path",
            f"{path!r}: a path cannot contain a NUL character; leave it out",
        )


@pytest.mark.parametrize("weights", [5, ["timm"], "a\0.pth"])
def test_weights_are_a_path_or_a_name(weights: Any) -> None:
    assert refusal(lambda: hardy.create("tiny", classes="camvid11", weights=weights)) in (
        f"{weights!r} is not a path; give a text or a Path",
        f"{weights!r}: a path cannot contain a NUL character; leave it out",
    )


def test_one_domain_needs_no_list() -> None:
    net = hardy.create("tiny", classes="cityscapes19")
    assert refusal(lambda: hardy.train(net, data="streets/smi", steps=1)).startswith("'streets/smi': streets has no")
    assert refusal(lambda: hardy.evaluate(net, data="streets/smi")).startswith("'streets/smi': streets has no domain")
    for data in (None, 5, [5]):
        said = refusal(lambda data=data: hardy.train(net, data=data, steps=1))  # type: ignore[misc]
        assert said.startswith(f"data {data}: give domains such as ['camvid/0001TP']")


@pytest.mark.parametrize("size", [64, "64x64", (64,), (64, 64.5), (8, 64)])
def test_a_size_is_two_whole_numbers(size: Any, tmp_path: Path) -> None:
    net = hardy.create("tiny", classes="camvid11")
    for call in (
        lambda: hardy.export(net, tmp_path / "x.onnx", size=size),
        lambda: hardy.bench(net, size=size),
        lambda: hardy.predict(net, tmp_path, tmp_path / "masks", size=size),
    ):
        assert refusal(call) == f"size {size!r}: give (height, width), each at least 16"


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (5, (1, 1, 1), "mean 5 is not one number for each of R, G and B"),
        ((0, 0), (1, 1, 1), "mean (0, 0) is not one number for each of R, G and B"),
        ((0, 0, 0), (0, 1, 1), "std (0, 1, 1) is not above 0"),
        ((0, 0, float("nan")), (1, 1, 1), "mean (0, 0, nan) is not one number for each of R, G and B"),
    ],
)
def test_a_normalisation_of_a_wrapped_module_is_three_numbers(mean: Any, std: Any, said: str) -> None:
    assert refusal(lambda: hardy.wrap(PLAIN, "camvid11", mean=mean, std=std)) == said


def test_what_is_wrapped_is_a_module() -> None:
    assert refusal(lambda: hardy.wrap("net", "camvid11")) == (  # type: ignore[arg-type]
        "module 'net' is not a torch module (nn.Module); give the object itself"
    )
