"""The nine domains of `streets`: light, weather, town and camera of each, as plain numbers.

Light is linear; 1 is a white sheet in full daylight. Colours of light and air are linear too.
"""

import dataclasses
from dataclasses import dataclass

from hardy.data.streets.town import TOWN_A, TOWN_B, Colour, Town

__all__ = ["DOMAINS", "Appearance"]


@dataclass(frozen=True)
class Appearance:
    """How a domain looks. Pairs are the lowest and highest value of a uniform draw per image.

    Attributes:
        town: where it is.
        texture: strength of fine surface detail, 0 for flat colours.
        zenith: sky overhead.
        horizon: sky above the roofs; also the colour of the haze.
        cloud: strength of clouds in the sky.
        sun: light of the sun on a surface that faces it.
        height: of the sun, degrees.
        shadow: share of sunlight that a shadow takes.
        sky: light of the sky on an open level surface.
        lamps: brightness of street lamps and headlights, 0 by day.
        windows: share of windows that are lit.
        haze: extinction of the air, 1/metre.
        wet: how wet the ground is, 0 to 1.
        snow: how much snow lies, 0 to 1.
        rain: number of streaks in an image.
        flakes: number of snow flakes in an image.
        exposure: gain before the tone curve.
        noise: shot and read noise of the sensor.
        blur: share of light that spills onto the neighbour pixel.
        vignette: loss of light in the corners.
        distortion: barrel distortion of the lens, 0 for none.
        response: gain per channel and exponent of the tone curve.
        quality: of the JPEG the camera writes, 0 for none.
    """

    town: Town = TOWN_A
    texture: float = 1.0
    zenith: Colour = (0.16, 0.33, 0.70)
    horizon: Colour = (0.62, 0.72, 0.82)
    cloud: tuple[float, float] = (0.0, 0.9)
    sun: Colour = (1.05, 0.95, 0.78)
    height: tuple[float, float] = (32.0, 62.0)
    shadow: float = 0.9
    sky: Colour = (0.44, 0.48, 0.56)
    lamps: float = 0.0
    windows: tuple[float, float] = (0.0, 0.0)
    haze: tuple[float, float] = (0.001, 0.003)
    wet: float = 0.0
    snow: float = 0.0
    rain: int = 0
    flakes: int = 0
    exposure: tuple[float, float] = (0.95, 1.3)
    noise: tuple[float, float] = (0.0006, 0.004)
    blur: float = 0.12
    vignette: float = 0.1
    distortion: float = 0.0
    response: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 2.2)
    quality: int = 0


_DAY = Appearance()
_OVERCAST = dataclasses.replace(
    _DAY,
    zenith=(0.50, 0.53, 0.57),
    horizon=(0.62, 0.65, 0.68),
    cloud=(0.3, 0.7),
    sun=(0.10, 0.10, 0.10),
    shadow=0.0,
    sky=(0.58, 0.61, 0.65),
)

DOMAINS: dict[str, Appearance] = {
    "sim": dataclasses.replace(
        _DAY,
        texture=0.0,
        zenith=(0.30, 0.52, 0.86),
        horizon=(0.52, 0.70, 0.92),
        cloud=(0.0, 0.0),
        sun=(0.55, 0.55, 0.55),
        height=(48.0, 52.0),
        shadow=0.0,
        sky=(0.62, 0.62, 0.62),
        haze=(0.0, 0.0),
        exposure=(1.0, 1.0),
        noise=(0.0, 0.0),
        blur=0.0,
        vignette=0.0,
    ),
    "day": _DAY,
    "dusk": dataclasses.replace(
        _DAY,
        zenith=(0.05, 0.07, 0.17),
        horizon=(0.62, 0.30, 0.16),
        cloud=(0.2, 0.9),
        sun=(0.26, 0.12, 0.045),
        height=(7.0, 14.0),
        sky=(0.085, 0.075, 0.10),
        lamps=0.35,
        windows=(0.1, 0.3),
        haze=(0.002, 0.005),
        exposure=(1.1, 1.5),
        noise=(0.0014, 0.006),
        vignette=0.2,
    ),
    "night": dataclasses.replace(
        _DAY,
        zenith=(0.006, 0.007, 0.014),
        horizon=(0.022, 0.018, 0.020),
        cloud=(0.0, 0.3),
        sun=(0.0, 0.0, 0.0),
        shadow=0.0,
        sky=(0.012, 0.013, 0.019),
        lamps=1.0,
        windows=(0.15, 0.4),
        exposure=(0.7, 1.1),
        noise=(0.003, 0.008),
        blur=0.15,
        vignette=0.25,
    ),
    "fog": dataclasses.replace(
        _OVERCAST,
        zenith=(0.56, 0.58, 0.60),
        horizon=(0.58, 0.60, 0.62),
        cloud=(0.0, 0.1),
        haze=(0.028, 0.06),
        exposure=(0.85, 1.1),
    ),
    "rain": dataclasses.replace(
        _OVERCAST,
        zenith=(0.26, 0.29, 0.33),
        horizon=(0.40, 0.43, 0.46),
        sun=(0.02, 0.02, 0.02),
        sky=(0.30, 0.33, 0.37),
        lamps=0.12,
        windows=(0.05, 0.2),
        haze=(0.006, 0.014),
        wet=1.0,
        rain=170,
        exposure=(1.0, 1.35),
        noise=(0.001, 0.005),
        blur=0.16,
    ),
    "snow": dataclasses.replace(
        _OVERCAST,
        zenith=(0.60, 0.62, 0.65),
        horizon=(0.68, 0.70, 0.73),
        sky=(0.60, 0.63, 0.69),
        haze=(0.006, 0.014),
        snow=1.0,
        flakes=340,
        exposure=(0.85, 1.05),
    ),
    "city_b": dataclasses.replace(
        _DAY,
        town=TOWN_B,
        zenith=(0.10, 0.34, 0.66),
        horizon=(0.72, 0.74, 0.70),
        sun=(1.05, 0.95, 0.78),
        height=(35.0, 68.0),
        exposure=(0.95, 1.2),
    ),
    "camera_b": dataclasses.replace(
        _DAY,
        exposure=(0.8, 1.5),
        noise=(0.003, 0.012),
        blur=0.2,
        vignette=0.45,
        distortion=0.28,
        response=(1.18, 1.0, 0.80, 1.75),
        quality=38,
    ),
}
"""Name of each domain -> how it looks, in the order they are listed."""
