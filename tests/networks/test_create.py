import logging

import pytest

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.building.create import create, rebuild


def test_a_random_encoder_is_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    network = create("classifier", "pacs7", encoder="mobilenetv2_035")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "RANDOM WEIGHTS" in caplog.text
    caplog.clear()
    rebuild(network.architecture, network.label_space)
    create("tiny", "pacs7")
    assert caplog.records == []


def test_every_option_is_written_down_even_the_decoders() -> None:
    network = create("encoder_decoder", "pacs7", encoder="mobilenetv2_035", decoder="linear")
    assert network.architecture == {
        "name": "encoder_decoder",
        "options": {
            "encoder": "mobilenetv2_035",
            "encoder_weights": None,
            "output_stride": None,
            "finest_stride": 4,
            "decoder": "linear",
            "decoder_options": {"maps": "last", "dropout": 0.0},
            "aux": False,
            "vit": None,
        },
    }


def test_classes_are_a_name_or_a_space() -> None:
    space = find_label_space("camvid11")
    assert create("tiny", "camvid11").label_space == create("tiny", space).label_space == space


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("fast_scn", "camvid11"), {}, "did you mean 'fast_scnn'"),
        (("tiny", "camvid12"), {}, "did you mean 'camvid11'"),
        (("tiny", "camvid11"), {"widht": 3}, "did you mean 'width'"),
        (("tiny", "camvid11"), {"width": "wide"}, "width"),
        (("tiny", "camvid11"), {"weights": "timm"}, "no pre-trained encoder"),
        (("tiny", "camvid11"), {"weights": "."}, "is a folder"),
        (("swiftnet", "camvid11"), {"weights": "timm", "encoder_weights": "a1_in1k"}, "give one of them"),
    ],
)
def test_refuses_what_is_not_there(arguments: tuple[str, str], options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        create(*arguments, **options)
    assert "\n" not in str(caught.value)
