"""Paint of the upright faces of `streets`: houses with windows and shops, yard walls, fences, hedges.

Everything is a function of the metres along a face and the metres over the ground. Edges fade over one pixel, and
what is smaller than a pixel becomes its mean, so that distant houses do not flicker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardy.data.streets.layout import Wall
from hardy.data.streets.noise import grain, hashed, tile
from hardy.data.streets.town import BUILDING, FENCE, VEGETATION, WALL
from hardy.data.streets.view import View

__all__ = ["Painted", "paint_upright"]


@dataclass
class Painted:
    """Paint of some pixels.

    Attributes:
        label: (P,) uint8 class.
        albedo: (3, P) float32 linear reflectance.
        glass: (P,) float32 share of the pixel that is window glass.
        glow: (P,) float32 in [0, 1], a number per window that says which lights are on.
        cover: (P,) float32 share of the pixel on which snow would lie.
    """

    label: np.ndarray
    albedo: np.ndarray
    glass: np.ndarray
    glow: np.ndarray
    cover: np.ndarray


@dataclass
class _Face:
    """The pixels of the faces of one class, and their properties."""

    table: dict[str, np.ndarray]
    wall: np.ndarray
    along: np.ndarray
    over: np.ndarray
    scale: np.ndarray
    rise: np.ndarray
    top: np.ndarray
    noise: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """Attribute ``name`` of each pixel's face: (P,) or, for a colour in linear light, (3, P)."""
        return np.asarray(self.table[name].take(self.wall, axis=-1))


def _table(walls: Sequence[Wall]) -> dict[str, np.ndarray]:
    """Attribute -> its value for every face, (N,) or for a colour (3, N) in linear light."""
    columns = zip(*walls, strict=True)
    out = {name: np.array(column, np.float32) for name, column in zip(Wall._fields, columns, strict=True)}
    return {name: column if column.ndim == 1 else column.T**2 for name, column in out.items()}


def _mix(base: np.ndarray, other: np.ndarray | float, share: np.ndarray) -> None:
    """Blend ``other`` into ``base`` in place."""
    base += (other - base) * share


def _inside(half: np.ndarray | float, away: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Share of a pixel within ``half`` metres of the place it is ``away`` metres from, at ``scale`` pixels/metre."""
    share = (half - np.abs(away)) * scale
    share += 0.5
    return np.asarray(np.clip(share, 0, 1, out=share))


def _house(face: _Face) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Albedo, glass, glow and snow cover of house pixels."""
    bay, floor, ground, roof = face.of("bay"), face.of("floor"), face.of("ground"), face.of("roof")
    trim, over = face.of("trim"), face.over
    albedo = face.of("colour")
    albedo *= 1 + 0.06 * face.noise
    pattern = face.of("pattern")
    level = over - ground
    story = np.floor(level / floor)
    up = level - (story + 0.5) * floor
    number = np.floor(face.along / bay)
    side = face.along - (number + 0.5) * bay
    chance = hashed(number, story + 7, face.wall)
    half_width, half_height = face.of("width") * bay / 2, face.of("tall") * floor / 2
    eaves = face.top - roof
    open_ = (level > 0) & (over + floor * 0.25 < eaves + roof * 0.3)
    band = _inside(0.09, up + floor / 2, face.rise) * ((pattern > 0) & (level > -0.1))
    _mix(albedo, trim, band * 0.7)
    frame = _inside(half_width + 0.12, side, face.scale) * _inside(half_height + 0.12, up, face.rise) * open_
    _mix(albedo, trim, frame)
    glass = _inside(half_width, side, face.scale) * _inside(half_height, up, face.rise) * open_
    bars = _inside(0.035, side, face.scale) + _inside(0.035, up - half_height * 0.35, face.rise)
    glass *= 1 - 0.8 * np.minimum(bars, 1) * (pattern < 3)
    cover = _roof(face, albedo, eaves, roof)
    shop, lit = _shop(face, albedo, number, side, chance)
    pane = 0.012 + 0.12 * chance * chance + 0.05 * np.clip(up / floor, -0.5, 0.5)
    pane = np.where(shop > 0, 0.02 + 0.10 * hashed(number, np.floor(over * 1.1), face.wall) ** 2, pane)
    glass = np.maximum(glass, shop)
    for channel, tint in enumerate((0.85, 1.0, 1.2)):
        _mix(albedo[channel], pane * tint, glass)
    sill = _inside(0.07, up + half_height + 0.1, face.rise) * _inside(half_width, side, face.scale) * open_
    return albedo, glass, np.maximum(chance, lit * 0.98), np.maximum(cover, sill)


def _roof(face: _Face, albedo: np.ndarray, eaves: np.ndarray, roof: np.ndarray) -> np.ndarray:
    """Roof band above the eaves and a cornice under it, in place; the share that is roof."""
    tiled = np.clip((face.over - eaves) * face.rise, 0, 1) * (roof > 0.8)
    rows = 0.85 + 0.3 * (np.floor(face.over * 3.3) % 2)
    _mix(albedo, face.of("tile") * rows, tiled)
    cornice = _inside(0.14, face.over - eaves, face.rise) * (roof > 0)
    _mix(albedo, face.of("trim"), cornice)
    return np.asarray(np.maximum(tiled, np.clip((face.over - face.top + 0.2) * face.rise, 0, 1)))


def _shop(
    face: _Face, albedo: np.ndarray, number: np.ndarray, side: np.ndarray, chance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shop windows and signboard below the ground floor's height, or a house door; paint in place, return the glass."""
    ground, bay = face.of("ground"), face.of("bay")
    shop = ground > 0
    door = (hashed(number, face.wall, 5) < 0.22) | (number == 1)
    tone = face.of("door")
    low = np.clip((ground - face.over) * face.rise + 0.5, 0, 1) * shop
    _mix(albedo, tone * 1.6 + 0.03, low * 0.7)
    board = _inside(0.3, face.over - ground + 0.5, face.rise) * shop
    colour = np.stack([hashed(np.floor(number / 3), face.wall, k + 11) for k in range(3)])
    _mix(albedo, 0.05 + 0.25 * colour * colour + 0.12 * colour.mean(axis=0), board)
    middle = (ground - 0.9) * 0.5 + 0.2
    glass = _inside(bay * 0.43, side, face.scale) * _inside(middle - 0.45, face.over - middle, face.rise)
    glass *= shop & ~door
    leaf = _inside(0.55, side, face.scale) * _inside(2.15, face.over, face.rise) * door
    _mix(albedo, tone, leaf)
    socle = np.clip((0.5 - face.over) * face.rise, 0, 1) * ~shop * (1 - leaf)
    albedo *= 1 - 0.35 * socle
    return glass, glass * (chance > 0.15)


def _yard_wall(face: _Face) -> np.ndarray:
    albedo = face.of("colour")
    row = np.floor(face.over / 0.3)
    joint = _inside(0.025, face.over - (row + 0.5) * 0.3 + 0.15, face.rise)
    block = face.along + 0.35 * (row % 2)
    number = np.floor(block / 0.7)
    joint = np.maximum(joint, _inside(0.025, block - number * 0.7 - 0.35, face.scale))
    albedo *= (0.9 + 0.25 * hashed(number, row, face.wall) + 0.1 * face.noise) * (1 - 0.35 * joint)
    _mix(albedo, face.of("trim"), np.clip((face.over - face.top + 0.14) * face.rise, 0, 1) * 0.6)
    return albedo


def _fence(face: _Face) -> np.ndarray:
    """Bars over the dim green behind them; from afar their mean."""
    albedo = face.of("colour")
    wide = face.of("pattern") > 0
    pitch, half = np.where(wide, 0.32, 0.22), np.where(wide, 0.115, 0.045)
    away = face.along - (np.floor(face.along / pitch) + 0.5) * pitch
    sharp = np.clip(face.scale * pitch / 3, 0, 1)
    bars = _inside(half, away, face.scale) * sharp + (2 * half / pitch) * (1 - sharp)
    rail = np.maximum(_inside(0.05, face.over - face.top + 0.15, face.rise), _inside(0.05, face.over - 0.2, face.rise))
    post = _inside(0.08, face.along - (np.floor(face.along / 2.4) + 0.5) * 2.4, face.scale)
    solid = np.maximum(np.maximum(bars, rail), post)
    gap = np.array([0.045, 0.06, 0.035], np.float32)[:, None] * (1 + 0.3 * face.noise)
    _mix(albedo, gap, 1 - solid)
    return albedo


def _leaves(face: _Face) -> np.ndarray:
    albedo = face.of("colour")
    clump = hashed(np.floor(face.along * 0.8 + 0.4 * np.sin(face.over * 1.3)), np.floor(face.over * 0.9), face.wall)
    albedo *= np.clip(0.45 + 0.45 * clump + 0.25 * face.noise + 0.35 * face.over / face.top, 0.15, 2)
    return albedo


def paint_upright(
    view: View, walls: Sequence[Wall], over: np.ndarray, focal: float, seed: int, texture: float
) -> Painted:
    """Paint the pixels ``view.upright``; ``over`` (P,) is their height in metres, ``texture`` scales fine detail."""
    label = np.array([wall.label for wall in walls], np.uint8).take(view.wall)
    count = len(label)
    blank = np.zeros((3, count), np.float32)
    out = Painted(label, np.empty((3, count), np.float32), *blank)
    rise = np.float32(focal) / view.depth.ravel()[view.upright]
    fine, table = tile(seed, 0.8), _table(walls)
    for kind, painter in ((WALL, _yard_wall), (FENCE, _fence), (VEGETATION, _leaves), (BUILDING, None)):
        chosen = np.flatnonzero(label == kind)
        along, high = view.along[chosen], over[chosen]
        number = view.wall[chosen]
        noise = grain(fine, along * 9 + number * 31, high * 9) * np.float32(texture)
        face = _Face(table, number, along, high, view.scale[chosen], rise[chosen], view.top[chosen], noise)
        if painter is None:
            albedo, out.glass[chosen], out.glow[chosen], out.cover[chosen] = _house(face)
        else:
            albedo = painter(face)
            out.cover[chosen] = np.clip((high - face.top + 0.16) * face.rise, 0, 1)
            if kind == VEGETATION:
                out.cover[chosen] = np.clip(0.25 + 0.4 * noise + 0.45 * high / face.top, 0, 0.9)
        for target, paint in zip(out.albedo, albedo, strict=True):
            target[chosen] = paint
    return out
