"""The sky, and what falls from it.

In: a scene, a camera, a light, a moment. Out: marks on the picture. Must hold: the same moment always looks the same.
"""

from random import Random

from PIL.ImageDraw import ImageDraw

from vlm_crash.demo.camera import Camera, Light, mix, moment_random, scaled
from vlm_crash.demo.world import Scene


def draw_sky(draw: ImageDraw, scene: Scene, camera: Camera, light: Light) -> None:
    width, height = camera.width, camera.height
    horizon = min(camera.skyline(), height) + 0.1 * height
    weather = scene.truth["Weather"]
    for i in range(10):
        draw.rectangle(
            (0, horizon * i / 10, width, horizon * (i + 1) / 10 + 1), fill=mix(light.top, light.low, (i + 0.5) / 10)
        )
    rng = Random(scene.seed)
    if weather == "Clear":
        if light.dark:
            star = scaled((235, 235, 215), 1.0)
            for _ in range(36):
                u, v, r = rng.uniform(0, width), rng.uniform(0, horizon), width * rng.uniform(0.0025, 0.005)
                draw.ellipse((u - r, v - r, u + r, v + r), fill=star)
        u, r = rng.uniform(0.1, 0.9) * width, width * (0.045 if light.name != "Dawn_dusk" else 0.06)
        v = (rng.uniform(0.1, 0.3) if light.name != "Dawn_dusk" else rng.uniform(0.6, 0.8)) * horizon
        if light.name == "Daylight":
            draw.ellipse(
                (u - 1.5 * r, v - 1.5 * r, u + 1.5 * r, v + 1.5 * r), fill=mix(light.top, (255, 255, 240), 0.5)
            )
        draw.ellipse(
            (u - r, v - r, u + r, v + r), fill=(255, 252, 225) if light.name != "Dawn_dusk" else (255, 214, 110)
        )
    elif weather in ("Cloudy", "Rainy"):
        for _ in range(9):
            u, v = rng.uniform(0, width), rng.uniform(-0.05, 0.75) * horizon
            a, b = width * rng.uniform(0.1, 0.22), horizon * rng.uniform(0.08, 0.16)
            shade = 1.22 if weather == "Cloudy" and rng.random() < 0.6 else 0.72
            cloud = scaled(mix(light.top, light.low, 0.5), shade)
            for k in (-0.5, 0.0, 0.55):
                draw.ellipse((u + k * a - a * 0.6, v - b * (1 - abs(k)), u + k * a + a * 0.6, v + b), fill=cloud)


def draw_precipitation(draw: ImageDraw, scene: Scene, camera: Camera, light: Light, t_s: float) -> None:
    weather = scene.truth["Weather"]
    width, height = camera.width, camera.height
    if weather == "Rainy":
        rng = moment_random(scene.seed, t_s, "rain")
        slant = (scene.look.randoms[12] - 0.5) * 0.5
        colour = mix(light.low, (225, 232, 242), 0.55 if not light.dark else 0.4)
        line = max(1, round(width / 220))
        for _ in range(62):
            u, v, far = (
                rng.uniform(-0.05, 1.05) * width,
                rng.uniform(-0.1, 1.0) * height,
                rng.uniform(0.07, 0.17) * height,
            )
            draw.line((u, v, u + slant * far, v + far), fill=colour, width=line)
    elif weather == "Snowy":
        rng = moment_random(scene.seed, t_s, "snow")
        colour = scaled((250, 251, 255), 1.0) if not light.dark else (186, 190, 204)
        for _ in range(85):
            u, v, r = rng.uniform(0, 1) * width, rng.uniform(0, 1) * height, width * rng.uniform(0.004, 0.0125)
            draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)
