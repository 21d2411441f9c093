"""Paint of the ground of `streets`: carriageway with markings, kerbs, pavements, grass, side streets.

A function of the place (x, z) in street metres; markings fade over one pixel.
"""

from dataclasses import dataclass

import numpy as np

from hardy.data.streets.layout import FIRST, STEP, Layout
from hardy.data.streets.noise import grain, hashed, tile
from hardy.data.streets.town import ROAD, SIDEWALK, TERRAIN, Colour

__all__ = ["Ground", "paint_ground"]


@dataclass
class Ground:
    """Paint of the ground pixels.

    Attributes:
        label: (P,) uint8 class.
        albedo: (3, P) float32 linear reflectance.
        track: (P,) float32 in [0, 1], how much wheels have cleared this place.
        hollow: (P,) float32, smooth noise: where it is high, water stands.
    """

    label: np.ndarray
    albedo: np.ndarray
    track: np.ndarray
    hollow: np.ndarray


@dataclass
class _Pixels:
    """Positions of the pixels: street x and z, |x|, side (0 left, 1 right), pixels per metre across and along."""

    x: np.ndarray
    z: np.ndarray
    off: np.ndarray
    side: np.ndarray
    across: np.ndarray
    ahead: np.ndarray

    def line(self, centre: np.ndarray | float, half: float) -> np.ndarray:
        """Share of each pixel covered by a line along the street, ``half`` metres to either side of x = centre."""
        return np.asarray(np.clip((half - np.abs(self.x - centre)) * self.across + 0.5, 0, 1))

    def bar(self, centre: np.ndarray | float, half: float) -> np.ndarray:
        """Share of each pixel covered by a line across the street, around z = centre."""
        return np.asarray(np.clip((half - np.abs(self.z - centre)) * self.ahead + 0.5, 0, 1))


def _classes(layout: Layout, pixels: _Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Class of each pixel, and metres from the kerb (negative on the carriageway)."""
    cell = np.clip(((pixels.z - FIRST) / STEP).astype(np.int32), 0, layout.yard.shape[1] - 1)
    cell += pixels.side * layout.yard.shape[1]
    street = layout.side_street.ravel().take(cell)
    road, verge, walk = (
        np.array(pair, np.float32).take(pixels.side) for pair in (layout.road, layout.verge, layout.walk)
    )
    kerb = pixels.off - road
    label = layout.yard.ravel().take(cell)
    label[kerb < verge + walk] = SIDEWALK
    near = layout.side_street[:, np.clip(np.arange(layout.yard.shape[1]) + 8, 0, layout.yard.shape[1] - 1)]
    far = layout.side_street[:, np.clip(np.arange(layout.yard.shape[1]) - 8, 0, layout.yard.shape[1] - 1)]
    corner = (near | far | layout.side_street).ravel().take(cell)
    label[(kerb > 0.2) & (kerb < verge) & ~corner] = TERRAIN
    label[corner & (kerb > 0)] = SIDEWALK
    label[(kerb < 0) | street] = ROAD
    return label, kerb


def _dashes(pixels: _Pixels, length: float, gap: float) -> np.ndarray:
    period = length + gap
    phase = pixels.z - np.floor(pixels.z / period) * period
    crisp = np.clip((length / 2 - np.abs(phase - length / 2)) * pixels.ahead + 0.5, 0, 1)
    sharp = np.clip(pixels.ahead * period / 4, 0, 1)
    return np.asarray(crisp * sharp + (length / period) * (1 - sharp))


def _markings(layout: Layout, pixels: _Pixels, double: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cover of the white markings and of the centre line."""
    left, right = (layout.road[side] - layout.parking[side] for side in range(2))
    middle = (right - left) / 2
    if double:
        centre = np.maximum(pixels.line(middle - 0.15, 0.06), pixels.line(middle + 0.15, 0.06))
    else:
        centre = pixels.line(middle, 0.08) * _dashes(pixels, 3.0, 4.0)
    white = np.zeros_like(pixels.x)
    if layout.lanes == 2:
        for edge in (middle + (right - middle) / 2, middle - (left + middle) / 2):
            np.maximum(white, pixels.line(edge, 0.07) * _dashes(pixels, 2.0, 4.0), out=white)
    for side, sign in enumerate((-1, 1)):
        edge = sign * (layout.road[side] - layout.parking[side])
        share = pixels.line(edge, 0.06) * (_dashes(pixels, 1.0, 1.0) if layout.parking[side] else 1.0)
        np.maximum(white, share, out=white)
    for z in layout.crossings:
        phase = pixels.x - np.floor(pixels.x) - 0.5
        crisp = np.clip((0.26 - np.abs(phase)) * pixels.across + 0.5, 0, 1)
        zebra = np.clip((1.6 - np.abs(pixels.z - z)) * pixels.ahead + 0.5, 0, 1)
        centre *= np.abs(pixels.z - z) > 3.2
        white *= np.abs(pixels.z - z) > 2.6
        np.maximum(white, zebra * crisp, out=white)
        np.maximum(white, pixels.bar(z - 3.0, 0.2) * (pixels.x > middle), out=white)
    return white, centre


def _carriageway(layout: Layout, pixels: _Pixels, noise: np.ndarray, patch: np.ndarray, colour: Colour) -> np.ndarray:
    tone = 0.105 * (1 + 0.15 * noise + 0.14 * patch)
    repair = hashed(np.floor(pixels.x / 2.4), np.floor(pixels.z / 5.5), int(1e5 * layout.road[0]))
    tone *= np.where(repair < 0.06, 0.72, 1.0)
    salt = int(1e5 * layout.road[0])
    stretch = np.floor(pixels.z * (1 / 17))
    aside = pixels.x - 5 * (hashed(stretch, salt) - 0.5)
    lid = np.hypot(aside, pixels.z - 17 * stretch - 2 - 13 * hashed(stretch, salt + 1)) < 0.33
    tone = np.where(lid, tone * 0.5, tone)
    albedo = np.stack([tone * 1.0, tone * 1.0, tone * 1.04])
    white, centre = _markings(layout, pixels, colour[2] < 0.5)
    worn = 0.85 + 0.12 * noise
    for channel in range(3):
        albedo[channel] += (0.62 - albedo[channel]) * white * worn
        albedo[channel] += (colour[channel] ** 2 * 0.8 - albedo[channel]) * centre * worn
    return albedo


def _pavement(pixels: _Pixels, kerb: np.ndarray, noise: np.ndarray) -> np.ndarray:
    slab = hashed(np.floor(pixels.x / 0.9), np.floor(pixels.z / 0.9), 1)
    tone = 0.27 * (0.93 + 0.14 * slab + 0.10 * noise)
    for metres, scale in ((pixels.x, pixels.across), (pixels.z, pixels.ahead)):
        away = np.abs(metres - np.floor(metres / 0.9) * 0.9 - 0.45)
        joint = np.clip((away - 0.425) * scale + 0.5, 0, 1) * np.clip(scale * 0.9 / 6, 0, 1)
        tone *= 1 - 0.3 * joint
    stone = np.clip((0.24 - np.abs(kerb - 0.12)) * pixels.across + 0.5, 0, 1)
    tone += (0.42 - tone) * stone
    tone *= 1 - 0.65 * np.clip((0.06 - np.abs(kerb - 0.03)) * pixels.across + 0.3, 0, 1)
    return np.stack([tone * 1.05, tone, tone * 0.94])


def _grass(noise: np.ndarray, patch: np.ndarray) -> np.ndarray:
    tone = np.clip(1 + 0.3 * noise + 0.22 * patch, 0.2, 2)
    return np.stack([0.105 * tone * (1 + 0.15 * patch), 0.17 * tone, 0.045 * tone])


def _tracks(layout: Layout, x: np.ndarray) -> np.ndarray:
    """How much wheels have worn or cleared each place: two soft ruts per lane."""
    left, right = (layout.road[side] - layout.parking[side] for side in range(2))
    lane = (left + right) / (2 * layout.lanes)
    phase = (x + left) - np.floor((x + left) / lane) * lane - lane / 2
    rut = np.abs(np.abs(phase) - 0.78)
    return np.clip(1.6 - rut / 0.3, 0, 1) * ((x > -left) & (x < right))


def paint_ground(
    layout: Layout,
    x: np.ndarray,
    z: np.ndarray,
    depth: np.ndarray,
    view: tuple[float, float],
    colour: Colour,
    look: tuple[int, float],
) -> Ground:
    """Paint the ground at street places (x, z), each (P,), seen ``depth`` metres ahead.

    Args:
        layout: the street.
        x: metres to the right of the centre line.
        z: metres along the street.
        depth: metres along the optical axis.
        view: focal length in pixels and height of the camera in metres.
        colour: of the centre line.
        look: seed of the noise, and its strength.
    """
    (focal, eye), (seed, texture) = view, look
    across = np.float32(focal) / depth
    pixels = _Pixels(x, z, np.abs(x), (x > 0).astype(np.int32), across, across * np.float32(eye) / depth)
    label, kerb = _classes(layout, pixels)
    fade = np.float32(texture) * np.clip(across / 40, 0.3, 1)
    noise = grain(tile(seed, 0.4), x * 42, z * 42) * fade
    patch = grain(tile(seed, 1.3), x * 3 + 90, z * 1.5)
    albedo = np.empty((3, len(x)), np.float32)
    for kind in (ROAD, SIDEWALK, TERRAIN):
        at = np.flatnonzero(label == kind)
        here = _Pixels(x[at], z[at], pixels.off[at], pixels.side[at], across[at], pixels.ahead[at])
        rough, smooth = noise[at], patch[at] * np.float32(texture)
        if kind == ROAD:
            paint = _carriageway(layout, here, rough, smooth, colour)
        elif kind == SIDEWALK:
            paint = _pavement(here, kerb[at], rough)
        else:
            paint = _grass(rough, smooth)
        for target, part in zip(albedo, paint, strict=True):
            target[at] = part
    return Ground(label, albedo, _tracks(layout, x) * (label == ROAD), patch)
