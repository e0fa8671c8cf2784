"""The sky, and what falls from it."""

from random import Random

from vlm_crash.demo.light import mix, scaled
from vlm_crash.demo.view import View


def draw_sky(view: View) -> None:
    """Bands from the top to below the horizon; sun, moon and stars in a clear sky, clouds in a cloudy or rainy one."""
    camera, light, weather = view.camera, view.light, view.scene.truth["Weather"]
    horizon = min(camera.skyline(), camera.height) + 0.1 * camera.height
    for i in range(10):
        band = (0, horizon * i / 10, camera.width, horizon * (i + 1) / 10 + 1)
        view.draw.rectangle(band, fill=mix(light.top, light.low, (i + 0.5) / 10))
    rng = Random(view.scene.seed)
    if weather == "Clear":
        _draw_clear_sky(view, horizon, rng)
    elif weather in ("Cloudy", "Rainy"):
        for _ in range(9):
            u, v = rng.uniform(0, camera.width), rng.uniform(-0.05, 0.75) * horizon
            a, b = camera.width * rng.uniform(0.1, 0.22), horizon * rng.uniform(0.08, 0.16)
            shade = 1.22 if weather == "Cloudy" and rng.random() < 0.6 else 0.72
            cloud = scaled(mix(light.top, light.low, 0.5), shade)
            for k in (-0.5, 0.0, 0.55):
                box = (u + k * a - a * 0.6, v - b * (1 - abs(k)), u + k * a + a * 0.6, v + b)
                view.draw.ellipse(box, fill=cloud)


def _draw_clear_sky(view: View, horizon: float, rng: Random) -> None:
    width, light = view.camera.width, view.light
    if light.dark:
        for _ in range(36):
            u, v, r = rng.uniform(0, width), rng.uniform(0, horizon), width * rng.uniform(0.0025, 0.005)
            view.disc(u, v, r, (235, 235, 215))
    low = light.name == "Dawn_dusk"
    u, r = rng.uniform(0.1, 0.9) * width, width * (0.06 if low else 0.045)
    v = (rng.uniform(0.6, 0.8) if low else rng.uniform(0.1, 0.3)) * horizon
    if light.name == "Daylight":
        view.disc(u, v, 1.5 * r, mix(light.top, (255, 255, 240), 0.5))
    view.disc(u, v, r, (255, 214, 110) if low else (255, 252, 225))


def draw_precipitation(view: View) -> None:
    """Streaks of rain or flakes of snow, new at every moment."""
    width, height, light, weather = view.camera.width, view.camera.height, view.light, view.scene.truth["Weather"]
    if weather == "Rainy":
        rng = view.random("rain")
        slant = (view.scene.look.randoms[12] - 0.5) * 0.5
        colour = mix(light.low, (225, 232, 242), 0.4 if light.dark else 0.55)
        line = max(1, round(width / 220))
        for _ in range(62):
            u, v = rng.uniform(-0.05, 1.05) * width, rng.uniform(-0.1, 1.0) * height
            far = rng.uniform(0.07, 0.17) * height
            view.draw.line((u, v, u + slant * far, v + far), fill=colour, width=line)
    elif weather == "Snowy":
        rng = view.random("snow")
        colour = (186, 190, 204) if light.dark else (250, 251, 255)
        for _ in range(85):
            u, v, r = rng.uniform(0, 1) * width, rng.uniform(0, 1) * height, width * rng.uniform(0.004, 0.0125)
            view.disc(u, v, r, colour)
