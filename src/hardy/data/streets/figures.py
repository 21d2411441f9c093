"""People, riders on bicycles, trees, lamps, signals and signs of `streets`."""

import math

import numpy as np
from numpy.random import Generator

from hardy.data.streets.mesh import LAMP, SIGNAL, SIGNPLATE, Builder, Mesh, bar, disc
from hardy.data.streets.town import BICYCLE, LIGHT, PERSON, POLE, RIDER, SIGN, VEGETATION, Colour

__all__ = ["bollard", "bush", "cyclist", "lamp", "person", "sign", "signal", "tree"]

SKIN: tuple[Colour, ...] = ((0.86, 0.66, 0.55), (0.72, 0.52, 0.40), (0.45, 0.31, 0.24))
CLOTHES: tuple[Colour, ...] = (
    (0.75, 0.15, 0.16),
    (0.16, 0.26, 0.52),
    (0.86, 0.84, 0.80),
    (0.18, 0.18, 0.20),
    (0.82, 0.62, 0.18),
    (0.22, 0.44, 0.34),
    (0.52, 0.34, 0.50),
    (0.46, 0.38, 0.30),
)
TROUSERS: tuple[Colour, ...] = ((0.16, 0.20, 0.32), (0.13, 0.13, 0.14), (0.40, 0.36, 0.30), (0.28, 0.28, 0.30))
HAIR: tuple[Colour, ...] = ((0.12, 0.09, 0.07), (0.38, 0.26, 0.14), (0.62, 0.52, 0.34), (0.5, 0.5, 0.5))
STEEL: Colour = (0.40, 0.42, 0.43)


def _any(rng: Generator, colours: tuple[Colour, ...]) -> Colour:
    red, green, blue = colours[int(rng.integers(len(colours)))]
    factor = float(rng.uniform(0.85, 1.12))
    return min(1.0, red * factor), min(1.0, green * factor), min(1.0, blue * factor)


def _darker(colour: Colour, factor: float = 0.78) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def person(rng: Generator) -> Mesh:
    """Someone on foot, 1.75 m tall, walking or standing, facing the camera or turned aside."""
    build = Builder(PERSON, (0.28, 0.2))
    coat, cloth, skin = _any(rng, CLOTHES), _any(rng, TROUSERS), _any(rng, SKIN)
    stride = float(rng.uniform(0.0, 0.26))
    swing = stride * 0.7
    wide = 0.20 if stride > 0.15 else 0.235
    for sign in (-1, 1):
        foot = sign * (0.09 + stride * 0.75)
        tone = cloth if sign < 0 else _darker(cloth)
        knee = sign * (0.10 + stride * 0.45)
        build.flat(bar(sign * 0.085, 0.92, knee, 0.48, 0.19, 0.15), tone)
        build.flat(bar(knee, 0.50, foot, 0.06, 0.15, 0.11), tone)
        shoe = [(foot - 0.07, 0.0), (foot + 0.12, 0.0), (foot + 0.08, 0.09), (foot - 0.07, 0.09)]
        build.flat(shoe, (0.10, 0.09, 0.09), layer=1)
        hand = sign * (wide + 0.06 + swing)
        build.flat(
            bar(sign * (wide - 0.02), 1.42, hand, 0.86, 0.11, 0.09), _darker(coat, 0.7 if sign > 0 else 0.85), layer=1
        )
        build.flat(disc(hand, 0.83, 0.05, 6), skin, layer=1)
    hem = 0.62 if rng.random() < 0.3 else 0.86
    torso = [
        (-wide, 1.44),
        (-0.1, 1.5),
        (0.1, 1.5),
        (wide, 1.44),
        (wide * 0.82, 1.1),
        (0.19, hem),
        (-0.19, hem),
        (-wide * 0.82, 1.1),
    ]
    build.flat(torso, coat, layer=2)
    if rng.random() < 0.3:
        build.flat([(-0.14, 1.05), (0.14, 1.05), (0.14, 1.42), (-0.14, 1.42)], _any(rng, CLOTHES), layer=3)
    build.flat([(-0.05, 1.46), (0.05, 1.46), (0.05, 1.56), (-0.05, 1.56)], _darker(skin), layer=3)
    build.flat([(x * 0.88, y) for x, y in disc(0, 1.63, 0.125, 10)], skin, layer=4)
    build.flat([(x * 0.95, y) for x, y in disc(0, 1.645, 0.128, 12)[:7]], _any(rng, HAIR), layer=5)
    return build.build()


def cyclist(rng: Generator, ridden: bool) -> Mesh:
    """A bicycle in the plane x = 0, front towards +z, with somebody on it where ``ridden``."""
    build = Builder(BICYCLE, (0.2, 0.8))
    frame = _any(rng, CLOTHES)
    for z in (-0.53, 0.53):
        build.side(disc(z, 0.35, 0.35, 14), (0.08, 0.08, 0.09))
        build.side(disc(z, 0.35, 0.27, 12), (0.47, 0.47, 0.46), layer=1)
        build.side(bar(z - 0.27, 0.35, z + 0.27, 0.35, 0.03), (0.2, 0.2, 0.2), layer=2)
        build.flat([(-0.04, 0.0), (0.04, 0.0), (0.04, 0.7), (-0.04, 0.7)], (0.08, 0.08, 0.09), z)
    tubes = ((-0.53, 0.35, -0.2, 0.78), (-0.53, 0.35, -0.05, 0.3), (-0.05, 0.3, -0.22, 0.86), (-0.05, 0.3, 0.38, 0.8))
    for tube in (*tubes, (-0.2, 0.76, 0.38, 0.82), (0.53, 0.35, 0.36, 0.95)):
        build.side(bar(*tube, 0.06), frame, layer=3)
    build.side(bar(-0.34, 0.9, -0.08, 0.91, 0.07), (0.1, 0.1, 0.1), layer=3)
    build.side(bar(0.28, 1.02, 0.44, 0.98, 0.05), (0.15, 0.15, 0.15), layer=3)
    build.flat(bar(-0.28, 1.0, 0.28, 1.0, 0.05), (0.15, 0.15, 0.15), 0.4, layer=3)
    if ridden:
        _rider(build, rng)
    return build.build()


def _rider(build: Builder, rng: Generator) -> None:
    coat, cloth, skin, helmet = _any(rng, CLOTHES), _any(rng, TROUSERS), _any(rng, SKIN), _any(rng, CLOTHES)
    low = float(rng.uniform(0.2, 0.36))
    parts = (
        (bar(-0.2, 0.95, 0.14, 0.68 + low / 2, 0.2, 0.15), _darker(cloth), 4),
        (bar(0.14, 0.68 + low / 2, 0.0, low + 0.16, 0.14, 0.1), _darker(cloth), 4),
        (bar(-0.2, 0.95, 0.12, 0.66, 0.2, 0.15), cloth, 5),
        (bar(0.12, 0.68, -0.04, low, 0.15, 0.1), cloth, 5),
        (bar(-0.06, low - 0.03, 0.12, low - 0.03, 0.08), (0.1, 0.1, 0.1), 5),
        (bar(-0.22, 0.9, 0.1, 1.42, 0.3, 0.28), coat, 6),
        (bar(0.1, 1.36, 0.28, 1.12, 0.12, 0.1), _darker(coat), 7),
        (bar(0.28, 1.14, 0.42, 1.02, 0.1, 0.08), skin, 7),
    )
    for corners, colour, layer in parts:
        build.side(corners, colour, layer=layer, label=RIDER)
    back = [(-0.19, 0.92), (-0.22, 1.38), (-0.1, 1.46), (0.1, 1.46), (0.22, 1.38), (0.19, 0.92)]
    build.flat(back, _darker(coat, 0.9), -0.05, layer=6, label=RIDER)
    for sign in (-1, 1):
        build.flat(bar(sign * 0.21, 1.36, sign * 0.27, 1.04, 0.1, 0.08), _darker(coat), 0.2, layer=5, label=RIDER)
        build.flat(bar(sign * 0.1, 0.95, sign * 0.12, low + 0.1 * sign, 0.17, 0.1), cloth, 0.0, layer=4, label=RIDER)
    build.flat(disc(0, 1.6, 0.12, 10), skin, 0.18, layer=8, label=RIDER)
    build.flat(disc(0, 1.64, 0.135, 12)[:7], helmet, 0.18, layer=9, label=RIDER)


def _blob(rng: Generator, count: int) -> np.ndarray:
    """(count, 11, 2) ragged rounds of radius about one."""
    angle = np.arange(11) * (2 * math.pi / 11) + rng.uniform(0, 6.3, (count, 1))
    radius = rng.uniform(0.78, 1.15, (count, 11))
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], axis=-1)


def tree(rng: Generator, slender: bool, green: Colour) -> Mesh:
    """A tree five to nine metres high: trunk, boughs and a crown of ragged clumps, the sunlit ones in front."""
    build = Builder(VEGETATION, (0.3, 0.3))
    height = float(rng.uniform(5.5, 9.0))
    wide = height * float(rng.uniform(0.11, 0.15) if slender else rng.uniform(0.24, 0.32))
    base = height * (0.12 if slender else float(rng.uniform(0.3, 0.4)))
    bark: Colour = (0.30, 0.24, 0.19)
    thick = height * 0.035
    build.flat(bar(0.0, 0.0, 0.0, base * 1.5, thick, thick * 0.6), bark)
    for sign in (-1, 1):
        build.flat(bar(0.0, base * 0.95, sign * wide * 0.5, base * 1.5, thick * 0.5, thick * 0.3), bark)
    count = 16
    rise = np.sort(rng.uniform(0, 1, count))
    spread = np.sin(np.clip(0.25 + rise * 0.75, 0, 1) * math.pi) if not slender else 1 - rise * 0.9
    x = rng.uniform(-1, 1, count) * wide * spread * 0.8
    y = base + (height - base) * (0.1 + 0.82 * rise)
    size = wide * (rng.uniform(0.42, 0.58, count) if not slender else 0.25 + 0.55 * (1 - rise))
    shape = _blob(rng, count) * size[:, None, None] + np.stack([x, y], axis=-1)[:, None]
    tone = 0.62 + 0.38 * rise + rng.uniform(-0.1, 0.1, count)
    for k in np.argsort(tone):
        shade = float(tone[k])
        build.face(
            np.concatenate([shape[k], np.full((11, 1), float(rng.uniform(-0.3, 0.3)))], axis=1),
            (green[0] * shade, green[1] * shade, green[2] * shade * 0.9),
            layer=1 + int(shade * 6),
            leaf=1.0,
        )
    return build.build()


def bush(rng: Generator, green: Colour) -> Mesh:
    """A bush about a metre high."""
    build = Builder(VEGETATION, (0.7, 0.4))
    for k, corners in enumerate(_blob(rng, 5) * np.array([0.55, 0.42])):
        shade = 0.6 + 0.1 * k
        x, y = float(rng.uniform(-0.6, 0.6)), float(rng.uniform(0.3, 0.7))
        points = np.concatenate([corners + np.array([x, y]), np.zeros((11, 1))], axis=1)
        build.face(points, (green[0] * shade, green[1] * shade, green[2] * shade), layer=k, leaf=1.0)
    return build.build()


def lamp(inward: int, tall: float) -> Mesh:
    """A street lamp whose arm reaches ``inward`` (-1 to the left, 1 to the right) over the road."""
    build = Builder(POLE, (0.12, 0.12))
    build.flat(bar(0.0, 0.0, 0.0, tall, 0.19, 0.13), STEEL)
    build.flat(bar(0.0, 0.0, 0.0, 0.9, 0.26), _darker(STEEL))
    build.flat(bar(0.0, tall - 0.05, inward * 1.5, tall + 0.25, 0.11), STEEL)
    build.flat(bar(inward * 1.3, tall + 0.2, inward * 2.1, tall + 0.26, 0.17), (0.80, 0.80, 0.74), layer=1, lamp=LAMP)
    return build.build()


def _signal_head(build: Builder, x: float, y: float, lit: int) -> None:
    build.flat(
        [(x - 0.21, y), (x + 0.21, y), (x + 0.21, y + 1.12), (x - 0.21, y + 1.12)],
        (0.07, 0.08, 0.08),
        label=LIGHT,
        layer=2,
    )
    colours: tuple[Colour, ...] = ((0.15, 0.9, 0.5), (1.0, 0.75, 0.1), (1.0, 0.14, 0.1))
    for k, colour in enumerate(colours):
        on = k == lit
        tone = colour if on else _darker(colour, 0.28)
        build.flat(disc(x, y + 0.21 + 0.35 * k, 0.14, 8), tone, label=LIGHT, layer=3, lamp=SIGNAL if on else 0)


def signal(rng: Generator, inward: int, over: float) -> Mesh:
    """A traffic light on its post; with ``over`` > 0 a second one on an arm that long over the road."""
    build = Builder(POLE, (0.12, 0.12))
    lit = int(rng.integers(3))
    tall = 5.9 if over else 3.3
    build.flat(bar(0.0, 0.0, 0.0, tall, 0.17), (0.30, 0.31, 0.31))
    _signal_head(build, 0.0, 2.25, lit)
    if over:
        build.flat(bar(0.0, tall - 0.1, inward * over, tall + 0.1, 0.13), (0.30, 0.31, 0.31))
        _signal_head(build, inward * (over - 0.3), tall - 1.05, lit)
    return build.build()


def sign(rng: Generator, other: bool) -> Mesh:
    """A traffic sign; ``other`` picks the shapes and colours of the second town."""
    build = Builder(POLE, (0.08, 0.08))
    red: Colour = (0.82, 0.10, 0.12)
    white: Colour = (0.95, 0.95, 0.95)
    blue: Colour = (0.10, 0.30, 0.70)
    kind = int(rng.integers(4))
    y = float(rng.uniform(2.2, 2.7))
    build.flat(bar(0.0, 0.0, 0.0, y + 0.35, 0.1), (0.52, 0.53, 0.54))
    plates: dict[int, tuple[tuple[list[tuple[float, float]], Colour], ...]] = {
        0: ((disc(0, y, 0.42, 14), red), (disc(0, y, 0.3, 12), white)),
        1: ((disc(0, y, 0.5, 3, math.pi / 2), red), (disc(0, y, 0.29, 3, math.pi / 2), white)),
        2: ((disc(0, y, 0.42, 14), blue), (bar(0, y - 0.22, 0, y + 0.24, 0.12), white)),
        3: ((bar(-0.3, y, 0.3, y, 0.75), blue), (bar(-0.08, y - 0.22, -0.08, y + 0.26, 0.13), white)),
    }
    second: dict[int, tuple[tuple[list[tuple[float, float]], Colour], ...]] = {
        0: ((disc(0, y, 0.45, 8, math.pi / 8), red), (bar(-0.25, y, 0.25, y, 0.12), white)),
        1: ((disc(0, y, 0.52, 4), (0.95, 0.75, 0.1)), (disc(0, y, 0.2, 4), (0.1, 0.1, 0.1))),
        2: ((bar(-0.32, y, 0.32, y, 0.85), white), (bar(-0.2, y + 0.1, 0.2, y + 0.1, 0.35), (0.1, 0.1, 0.1))),
        3: (
            (bar(-0.75, y + 0.1, 0.75, y + 0.1, 0.5), (0.08, 0.42, 0.25)),
            (bar(-0.6, y + 0.1, 0.6, y + 0.1, 0.1), white),
        ),
    }
    for layer, (corners, colour) in enumerate((second if other else plates)[kind], start=1):
        build.flat(corners, colour, label=SIGN, layer=layer, lamp=SIGNPLATE)
    return build.build()


def bollard() -> Mesh:
    """A knee-high post."""
    build = Builder(POLE, (0.1, 0.1))
    build.flat(bar(0.0, 0.0, 0.0, 0.95, 0.16), (0.22, 0.23, 0.24))
    build.flat(bar(0.0, 0.72, 0.0, 0.82, 0.165), (0.9, 0.9, 0.9), layer=1)
    return build.build()
