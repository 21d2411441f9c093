"""The readers of data sets that streams are made of, on tiny folders in their layouts."""

import json

import numpy as np
from dataset_files import names, only_item, refused, row_of, save, save_mask

from hardy.data.datasets.c_driving import CDriving
from hardy.data.datasets.shift import SHIFT
from hardy.data.stream import order
from hardy.sections import Stream

RGB = np.random.default_rng(0).integers(0, 256, (2, 40, 3), dtype=np.uint8)


def test_c_driving_has_a_domain_for_each_weather(tmp_path):
    root, raw = tmp_path / "C-Driving", row_of([*range(19), 255], width=40)
    for place in ("compound/cloudy", "compound/rainy", "compound/snowy", "open/overcast"):
        save(root / "val" / place / "0a-1.jpg", RGB)
        save_mask(root / "val" / place / "0a-1_train_id.png", raw)
    save(root / "train" / "compound" / "rainy" / "9.jpg", RGB)
    dataset = CDriving(tmp_path)
    assert names(dataset) == {domain: {"val": ["0a-1"]} for domain in ("cloudy", "rainy", "snowy", "overcast")}
    assert dataset.read(only_item(dataset))[1].tolist() == raw.tolist()
    (root / "val" / "open" / "overcast" / "0a-1_train_id.png").unlink()
    refused("overcast/0a-1.jpg: image without mask", CDriving, tmp_path)
    refused("no C-Driving here; it has val/compound", CDriving, tmp_path / "empty")


def test_c_driving_takes_masks_in_a_folder_of_their_own_and_overcast_among_the_others(tmp_path):
    save(tmp_path / "val" / "compound" / "overcast" / "b.jpg", RGB)
    save_mask(tmp_path / "labels" / "val" / "compound" / "overcast" / "b_train_id.png", row_of(range(19), width=40))
    assert names(CDriving(tmp_path)) == {"overcast": {"val": ["b"]}}


SEQUENCES = "view,video,shift_type,start_weather_coarse,start_timeofday_coarse\n"
# The class of each of SHIFT's 23 ids, by its authors' table; road lines are road, vehicles cars.
CLASSES = [255, 2, 4, 255, 11, 5, 0, 0, 1, 8, 13, 3, 7, 10, 255, 255, 255, 255, 6, 255, 255, 255, 9]


def shift(root, sequence, *frames, split="val", part="discrete"):
    place = root / part / "images" / split / "front"
    raw = row_of(range(23), width=40)
    for frame in frames:
        save(place / "img" / sequence / f"{frame}_img_front.jpg", RGB)
        first = np.stack([raw, np.full_like(raw, 3), np.full_like(raw, 9)], axis=-1)
        save_mask(place / "semseg" / sequence / f"{frame}_semseg_front.png", first)
    return place


def test_shift_has_a_domain_for_each_weather_and_time_in_the_order_of_the_frames(tmp_path):
    root = tmp_path / "shift"
    place = shift(root, "01a", "00000010", "00000000")
    shift(root, "02b", "00000000")
    text = SEQUENCES + "front,02b,no,clear,daytime\nfront,01a,no,rainy,dawn/dusk\n"
    (place / "seq.csv").write_text(text, encoding="utf-8")
    dataset = SHIFT(tmp_path)
    assert names(dataset) == {
        "clear_daytime": {"val": ["00000000_img_front"]},
        "rainy_dawn_dusk": {"val": ["00000000_img_front", "00000010_img_front"]},
    }
    _, label = dataset.read(only_item(dataset))
    assert label[0].tolist() == [*CLASSES, *CLASSES][:40]
    assert dataset.read_label(only_item(dataset)).tolist() == label.tolist()
    found = {dataset.label_space.classes[i] for i in label.ravel().tolist() if i != 255}
    assert found == set(dataset.label_space.classes) - set(dataset.never)


def test_shift_refuses_what_it_cannot_place(tmp_path):
    refused("no SHIFT here; it has discrete/images", SHIFT, tmp_path)
    place = shift(tmp_path, "01a", "00000000")
    refused("seq.csv: there is no such file", SHIFT, tmp_path)
    for text, said in (
        ("video,start_weather_coarse\n01a,clear\n", "has no column 'start_timeofday_coarse'"),
        (SEQUENCES + "front,02b,no,clear,daytime\n", "it has no entry for the sequence '01a'"),
        (SEQUENCES + "front,01a,no,hail,daytime\n", "sequence 01a is 'hail' at 'daytime'"),
    ):
        (place / "seq.csv").write_text(text, encoding="utf-8")
        refused(said, SHIFT, tmp_path)
    (place / "seq.csv").write_text(SEQUENCES + "front,01a,no,clear,night\n", encoding="utf-8")
    (place / "semseg" / "01a" / "00000000_semseg_front.png").unlink()
    refused("00000000_img_front.jpg: image without mask", SHIFT, tmp_path)


def driven(place, frames):
    """Write the attributes of frames (sequence, frame, weather, time of day)."""
    entries = [
        {
            "name": f"{frame}_img_front.jpg",
            "videoName": sequence,
            "attributes": {"weather_coarse": weather, "timeofday_coarse": time, "town": "10HD"},
            "labels": [],
        }
        for sequence, frame, weather, time in frames
    ]
    (place / "det_2d.json").write_text(json.dumps({"frames": entries, "config": {}}), encoding="utf-8")


def test_a_continuous_sequence_of_shift_passes_through_several_domains(tmp_path):
    place = shift(tmp_path, "01a", "00000000", "00000010", "00000020", part="continuous/10x")
    shift(tmp_path, "02b", "00000000", "00000010", part="continuous/10x")
    dusk = [("01a", "00000000", "clear", "daytime"), ("01a", "00000010", "clear", "dawn/dusk")]
    rain = [("02b", "00000000", "clear", "daytime"), ("02b", "00000010", "rainy", "daytime")]
    driven(place, [*rain, *dusk, ("01a", "00000020", "clear", "daytime")])
    first = shift(tmp_path, "01a", "00000000")
    (first / "seq.csv").write_text(SEQUENCES + "front,01a,no,clear,daytime\n", encoding="utf-8")

    index = SHIFT(tmp_path).index()
    found = {name: [f"{image.parent.name}/{image.name[:8]}" for image, _ in of["val"]] for name, of in index.items()}
    assert found == {
        "clear_daytime": ["01a/00000000"],
        "10x_clear_daytime": ["01a/00000000", "01a/00000020", "02b/00000000"],
        "10x_clear_dawn_dusk": ["01a/00000010"],
        "10x_rainy_daytime": ["02b/00000010"],
    }
    parts = [items for name, items in found.items() if name.startswith("10x_")]
    sizes = [(str(place), len(items)) for place, items in enumerate(parts)]
    frames = order(sizes, Stream(kind="recorded"), lambda frame: parts[frame.domain][frame.item])
    shown = ["01a/00000000", "01a/00000010", "01a/00000020", "02b/00000000", "02b/00000010"]
    assert [parts[frame.domain][frame.item] for frame in frames] == shown


def test_shift_refuses_continuous_frames_that_it_cannot_place(tmp_path):
    place = shift(tmp_path, "01a", "00000000", part="continuous/1x")
    refused("det_2d.json: there is no such file; it has the weather of each frame", SHIFT, tmp_path)
    driven(place, [("01a", "00000010", "clear", "night")])
    refused("it has no entry for the frame '01a/00000000_img_front.jpg'", SHIFT, tmp_path)
    driven(place, [("01a", "00000000", "hail", "night")])
    refused("frame 01a/00000000_img_front.jpg is 'hail' at 'night'", SHIFT, tmp_path)
    (place / "det_2d.json").write_text('{"frames": [{"name": "a", "videoName": "b"}]}', encoding="utf-8")
    refused("does not have the weather and time of each frame", SHIFT, tmp_path)
