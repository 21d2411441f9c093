"""The procedural streets: same bits for the same numbers, exact masks, true fog, every class in every domain."""

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from hardy.data.datasets.streets import Streets
from hardy.data.streets.domains import DOMAINS
from hardy.data.streets.layout import Wall, draw_layout
from hardy.data.streets.light import Surface, house_shadow
from hardy.data.streets.mesh import Builder, Placed, merge
from hardy.data.streets.raster import draw
from hardy.data.streets.scene import stage
from hardy.data.streets.sensor import distort, lens
from hardy.data.streets.shade import Weather, shade
from hardy.data.streets.town import BUILDING, CAR, ROAD, SKY, TOWN_A, VEGETATION
from hardy.data.streets.view import Camera, survey
from hardy.data.streets.weather import fog
from hardy.errors import InputError

SIZE = (64, 128)
NAMES = ("sim", "day", "dusk", "night", "fog", "rain", "snow", "city_b", "camera_b")
ABSENT = {"train", "motorcycle"}
SUN = np.array([0.6, 0.64, 0.48])


@cache
def sample(domain, count=30):
    """The first images and masks of a domain."""
    streets = Streets(size=SIZE)
    images, masks = zip(*(streets.read((domain, number)) for number in range(count)), strict=True)
    return np.stack(images), np.stack(masks)


def shares(domain):
    return np.bincount(sample(domain)[1].ravel(), minlength=19) / sample(domain)[1].size


def straight(size=SIZE, eye=1.5, horizon=0.5):
    return Camera(size, x=0.0, eye=eye, yaw=0.0, horizon=horizon, bend=0.0, zoom=1.0)


# ------------------------------------------------------------------------------------------------------ the data set


def test_index_names_the_nine_domains_and_splits_share_no_number():
    index = Streets(train=5, val=2, test=3).index()
    assert tuple(index) == NAMES == tuple(DOMAINS)
    for domain, splits in index.items():
        assert {split: len(items) for split, items in splits.items()} == {"train": 5, "val": 2, "test": 3}
        items = [item for split in splits.values() for item in split]
        assert items == [(domain, number) for number in range(10)]
        assert len(set(items)) == 10


@pytest.mark.costly
@pytest.mark.slow
def test_same_numbers_give_the_same_bits_in_a_fresh_process():
    code = (
        "import hashlib; from hardy.data.datasets.streets import Streets\n"
        "s = Streets(size=(48, 80), seed=3)\n"
        f"for d in {NAMES!r}: i, m = s.read((d, 4)); print(hashlib.sha256(i.tobytes() + m.tobytes()).hexdigest())"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = []
    for domain in reversed(NAMES):
        streets = Streets(size=(48, 80), seed=3)
        streets.read((domain, 9))  # what was drawn before must not matter
        image, mask = streets.read((domain, 4))
        here.append(hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest())
    assert here[::-1] == fresh
    assert len(set(fresh)) == len(NAMES)


def test_seed_number_and_domain_each_change_the_scene():
    first = Streets(size=SIZE).read(("day", 0))
    for streets, item in ((Streets(size=SIZE, seed=1), ("day", 0)), (Streets(size=SIZE), ("day", 1))):
        other = streets.read(item)
        assert (first[0] != other[0]).mean() > 0.5
        assert (first[1] != other[1]).mean() > 0.02
    assert (first[1] != Streets(size=SIZE).read(("fog", 0))[1]).mean() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("size", [(65, 97), (16, 16), (90, 40), (512, 1024)])
def test_any_size(size):
    streets = Streets(size=size)
    for domain in NAMES if size[0] < 100 else ("camera_b", "rain"):
        image, mask = streets.read((domain, 1))
        assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == (size, np.uint8)


def test_a_scene_is_the_same_at_another_size():
    small = Streets(size=(128, 256)).read(("day", 2))[1]
    large = Streets(size=(256, 512)).read(("day", 2))[1]
    blocks = large.reshape(128, 2, 256, 2).transpose(0, 2, 1, 3).reshape(128, 256, 4)
    assert (blocks == small[..., None]).any(axis=-1).mean() > 0.985


def test_bad_options_and_items_are_refused():
    for options, message in (({"size": (8, 512)}, "size is 8 x 512"), ({"val": -1}, "val is -1")):
        with pytest.raises(InputError, match=message):
            Streets(**options)
    with pytest.raises(InputError, match="no domain 'mars'"):
        Streets().read(("mars", 0))


# ------------------------------------------------------------------------------------------------------- the domains


@pytest.mark.costly
@pytest.mark.parametrize("domain", NAMES)
def test_every_promised_class_occurs_and_no_other(domain):
    classes = Streets().label_space.classes
    promised = {number for number, name in enumerate(classes) if name not in ABSENT}
    assert set(np.unique(sample(domain)[1]).tolist()) == promised


@pytest.mark.slow
@pytest.mark.costly
def test_domains_share_label_statistics_but_for_the_other_town():
    day = shares("day")
    distance = {domain: np.abs(shares(domain) - day).sum() / 2 for domain in NAMES}
    assert max(found for domain, found in distance.items() if domain != "city_b") < 0.09
    assert distance["city_b"] > 0.1


def test_domains_look_different():
    means = {domain: sample(domain, 6)[0].mean(axis=(0, 1, 2)) for domain in NAMES}
    assert means["night"].sum() < means["dusk"].sum() < 0.75 * means["day"].sum()
    red, _, blue = means["dusk"]
    assert red > 1.15 * blue
    contrast = {domain: sample(domain, 6)[0].std(axis=(1, 2, 3)).mean() for domain in ("fog", "day")}
    assert contrast["fog"] < 0.75 * contrast["day"]
    road = {domain: sample(domain, 6)[0][sample(domain, 6)[1] == ROAD].mean() for domain in ("snow", "day", "rain")}
    assert road["snow"] > 1.3 * road["day"] > road["rain"]


def test_sim_is_flat_and_the_camera_domains_are_noisy():
    def colours(domain):
        image, mask = (part[0] for part in sample(domain))
        return len(np.unique(image[mask == ROAD], axis=0)) / (mask == ROAD).sum()

    assert colours("sim") < 0.1
    assert min(colours("day"), colours("night")) > 0.3


# ----------------------------------------------------------------------------------------------------------- geometry


def test_ground_and_face_depths_follow_the_pinhole():
    camera = straight()
    view = survey(camera, [Wall(-50, 20, 50, 20, 6.0, BUILDING, (0.5, 0.5, 0.5))])
    row = (np.arange(64) + 0.5 - 32) / camera.focal
    base, top = 1.5 / 20, (1.5 - 6.0) / 20
    expected = np.where(row > base, 1.5 / np.maximum(row, 1e-9), np.where(row >= top, 20.0, np.inf))
    np.testing.assert_allclose(view.depth, np.repeat(expected[:, None], 128, axis=1), rtol=1e-5)
    assert len(view.ground) == (row > base).sum() * 128


def test_the_nearer_face_hides_the_farther_one_below_its_top():
    near, far = (Wall(-50, z, 50, z, high, BUILDING, (0.5, 0.5, 0.5)) for z, high in ((10, 2.0), (30, 12.0)))
    view = survey(straight(), [far, near])
    column = view.depth[:, 40]
    assert column[np.isfinite(column)].max() == pytest.approx(30, rel=1e-5)
    row = (np.arange(64) + 0.5 - 32) / straight().focal
    np.testing.assert_allclose(column[(row > -0.049) & (row < 0.149)], 10, rtol=1e-5)  # to its foot
    assert column[row.tolist().index(row[row > 0.0].min())] == pytest.approx(10, rel=1e-5)


def test_an_object_is_drawn_where_it_projects_and_hidden_by_a_nearer_face():
    camera = straight()
    build = Builder(CAR)
    build.flat([(-1.0, 0.0), (1.0, 0.0), (1.0, 2.0), (-1.0, 2.0)], (0.5, 0.5, 0.5))
    board = merge([Placed(build.build(), 0.0, 8.0)])
    for wall_at, seen in ((20.0, True), (4.0, False)):
        view = survey(camera, [Wall(-50, wall_at, 50, wall_at, 9.0, BUILDING, (0.5, 0.5, 0.5))])
        drawn = draw(camera, board, view.depth, view.ground)
        assert (len(drawn.pixel) > 0) == seen
        if seen:
            np.testing.assert_allclose(drawn.depth, 8.0, rtol=1e-5)
            columns, rows = drawn.pixel % 128, drawn.pixel // 128
            half = camera.focal / 8
            assert abs(columns.min() - (64 - half)) <= 1
            assert abs(columns.max() - (63 + half)) <= 1
            assert abs(rows.min() - (32 - 0.5 * half)) < 1.5  # Pillow paints every row that the outline touches


def test_every_pixel_of_an_object_carries_the_class_of_the_face_it_shows():
    scene = stage(np.random.default_rng(5), DOMAINS["day"], (128, 256), 0)
    label = scene.label.ravel()
    np.testing.assert_array_equal(label[scene.drawn.pixel], scene.mesh.label[scene.drawn.face])
    rest = np.setdiff1d(np.arange(label.size), scene.drawn.pixel)
    np.testing.assert_array_equal(label[rest] == SKY, ~np.isfinite(scene.depth.ravel()[rest]))
    assert (scene.depth[np.isfinite(scene.depth)] > 0.25).all()
    assert set(np.unique(label[scene.view.upright]).tolist()) >= {BUILDING, VEGETATION}


def test_a_house_shades_what_is_lower_than_the_line_from_its_roof_to_the_sun():
    layout = draw_layout(np.random.default_rng(1), TOWN_A)
    layout.skyline[:] = 10.0
    line = layout.line(1)
    x = np.array([line - 1, line - 12, line - 18, line - 30], np.float32)  # the shadow of 10 m is 15 m long here
    flat = Surface(x, np.zeros(4, np.float32), np.full(4, 30, np.float32), np.full(4, 30, np.float32))
    sun = np.array([3.0, 2.0, 0.0]) / 13**0.5
    np.testing.assert_array_equal(house_shadow(layout, flat, sun), [1, 1, 0, 0])


# ------------------------------------------------------------------------------------------------- weather and camera


def test_fog_transmission_follows_the_distance():
    scene = stage(np.random.default_rng(2), DOMAINS["fog"], SIZE, 0)
    clear = shade(scene, DOMAINS["fog"], Weather(0.0, 0.0, SUN), np.random.default_rng(0), 0).astype(np.float64)
    air, beta = np.array([0.58, 0.60, 0.62]), 0.04
    hazy = clear.astype(np.float32)
    distance = scene.distance()
    solid = np.isfinite(distance)
    fog(hazy, np.where(solid, distance, 0), beta, air.astype(np.float32))
    depth = scene.depth.astype(np.float64)
    focal = 0.9 * (SIZE[0] * SIZE[1]) ** 0.5
    column = (np.arange(SIZE[1]) + 0.5 - SIZE[1] / 2) / focal
    row = (np.arange(SIZE[0]) + 0.5 - SIZE[0] * scene.camera.horizon) / focal
    ray = np.sqrt(1 + column[None] ** 2 + row[:, None] ** 2)
    passed = np.exp(-beta * np.where(solid, depth * ray, 0))
    expected = clear * passed + air[:, None, None] * (1 - passed)
    np.testing.assert_allclose(hazy, expected, rtol=2e-5, atol=2e-6)
    assert np.abs(hazy - clear)[:, solid].max() > 0.1
    np.testing.assert_array_equal(hazy[:, ~solid], clear.astype(np.float32)[:, ~solid])


def test_the_lens_bends_image_and_mask_alike():
    height, width = 48, 80
    row, column = np.mgrid[:height, :width].astype(np.float32)
    mask = (column // 20).astype(np.uint8)
    picture = np.stack([column, row, mask.astype(np.float32)])
    bent, label = distort(picture, mask, 0.3)
    columns, rows = lens((height, width), 0.3)
    np.testing.assert_allclose(bent[0], columns, atol=1e-3)
    np.testing.assert_allclose(bent[1], rows, atol=1e-3)
    np.testing.assert_array_equal(label, np.rint(columns) // 20)
    inside = bent[2] == np.rint(bent[2])  # away from the borders of the classes
    np.testing.assert_array_equal(label[inside], bent[2][inside])


def test_the_lens_keeps_the_corners_and_spreads_the_middle():
    columns, rows = lens((64, 128), 0.3)
    square = (63.5**2 + 31.5**2) / (64**2 + 32**2)  # of the first pixel's centre; the corner itself has 1
    factor = (1 + 0.3 * square) / 1.3
    assert (columns[0, 0], rows[0, 0]) == pytest.approx((63.5 - 63.5 * factor, 31.5 - 31.5 * factor), abs=1e-5)
    assert columns[32, 65] - columns[32, 64] == pytest.approx(1 / 1.3, rel=1e-3)
    assert columns.min() >= 0
    assert columns.max() <= 127


def test_camera_b_masks_are_bent_and_hold_no_ignored_pixel():
    plain, bent = sample("day")[1], sample("camera_b")[1]
    assert bent.max() < 19
    assert plain.max() < 19


def test_traffic_lights_and_poles_show_at_half_size():
    streets = Streets(size=(128, 256))
    counts = np.sum([np.bincount(streets.read(("day", k))[1].ravel(), minlength=19) for k in range(6)], axis=0)
    for name in ("pole", "light", "sign", "person"):
        assert counts[streets.label_space.index(name)] > 6 * 20
