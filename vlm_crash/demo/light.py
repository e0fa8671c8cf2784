"""The light and the air of a scene.

In: colours by daylight, distances in metres. Out: colours as the camera sees them.
"""

import math

from vlm_crash.demo.world import Colour, Scene

# light -> (ambient, tint, head lamps, sky at the top, sky at the horizon)
_LIGHTS = {
    "Daylight": (1.0, (1.0, 1.0, 1.0), 0.0, (88, 142, 214), (190, 214, 236)),
    "Dawn_dusk": (0.66, (1.12, 0.82, 0.68), 0.15, (92, 70, 122), (250, 148, 66)),
    "Dark_lighted": (0.54, (1.12, 0.92, 0.66), 0.35, (26, 24, 40), (66, 52, 50)),
    "Dark_unlighted": (0.2, (0.72, 0.86, 1.2), 1.0, (5, 7, 16), (14, 19, 34)),
}
_GREY_SKY = {"Cloudy": (0.85, 1.0), "Rainy": (0.62, 0.74), "Snowy": (0.86, 0.92), "Foggy": (0.95, 0.95)}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of `b`."""
    return (int(a[0] + (b[0] - a[0]) * share), int(a[1] + (b[1] - a[1]) * share), int(a[2] + (b[2] - a[2]) * share))


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made brighter or darker, clipped."""
    return (min(255, int(colour[0] * factor)), min(255, int(colour[1] * factor)), min(255, int(colour[2] * factor)))


class Light:
    """Colours of a scene: `lit` for what is lit, `glow` for what shines by itself."""

    def __init__(self, scene: Scene) -> None:
        truth, look = scene.truth, scene.look
        weather = truth["Weather"]
        self.name = truth["Light_condition"]
        ambient, tint, self.head, top, low = _LIGHTS[self.name]
        dull = {"Clear": 1.06, "Cloudy": 0.88, "Rainy": 0.78, "Snowy": 0.92, "Foggy": 0.92}[weather]
        strength = ambient * dull * look.exposure
        self.r, self.g, self.b = (strength * part for part in tint)
        self.head *= look.exposure
        if weather in _GREY_SKY:
            grey_top, grey_low = (int(205 * level) for level in _GREY_SKY[weather])
            level = {"Daylight": 1.0, "Dawn_dusk": 0.72, "Dark_lighted": 0.36, "Dark_unlighted": 0.13}[self.name]
            top = _tinted(grey_top * level, tint, 0.6)
            low = _tinted(grey_low * level, tint, 0.9)
        self.top, self.low = scaled(top, look.exposure), scaled(low, look.exposure)
        self.fog = self.low
        self.density = {"Foggy": 0.038, "Rainy": 0.01, "Snowy": 0.012}.get(weather, 0.002)
        if weather == "Foggy" and self.name.startswith("Dark"):
            self.fog = scaled(mix(self.low, (150, 155, 165), 0.25), look.exposure)
        self.dark = self.name.startswith("Dark")

    def lit(self, colour: Colour, s: float, shade: float = 1.0) -> Colour:
        """The colour at distance `s` ahead under this light, through this air."""
        spot = self.head * math.exp(-s * s / 500.0) * shade if self.head else 0.0
        seen = math.exp(-s * self.density)
        fog, rest = self.fog, 1 - seen
        return (
            min(255, int(colour[0] * (self.r * shade + spot) * seen + fog[0] * rest)),
            min(255, int(colour[1] * (self.g * shade + spot) * seen + fog[1] * rest)),
            min(255, int(colour[2] * (self.b * shade + spot) * seen + fog[2] * rest)),
        )

    def glow(self, colour: Colour, s: float) -> Colour:
        """The colour of a lamp at distance `s`."""
        return mix(self.fog, colour, math.exp(-s * self.density * 0.5))


def _tinted(level: float, tint: tuple[float, float, float], share: float) -> Colour:
    r, g, b = (min(255, int(level * (1 + (part - 1) * share))) for part in tint)
    return (r, g, b)
