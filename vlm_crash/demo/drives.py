"""Drives: minutes of ordinary driving with a crash or a near miss here and there, at known times.

In: a seed, a length, a number of events. Out: any picture of the drive, and the truth of its events.
Must hold: a drive is a row of legs, each on a road of its own, seen by one camera in one weather and light. Legs
follow each other by a cut whether something happened or not, so a cut tells nothing; an event comes up within its leg,
seconds after the cut, and a leg without one has slower and faster traffic, lane changes and vehicles ahead, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

import numpy as np

from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scenarios import CHANGING
from vlm_crash.demo.scene import FPS, field_names, sample_scene
from vlm_crash.demo.texts import note
from vlm_crash.demo.world import CUE_LEAD, EVENTS, ORDINARY, Look, Scene

HOLD_S = 2.0  # after an event's clip would have ended, before the cut
LEAD_S = (4.0, 14.0)  # in an event's leg, before its clip would begin
LEG_S = 25.0  # about how long a leg without an event lasts
#: What one camera and one hour of one day have in common; all else is the road's.
_CAMERA = ("exposure", "camera_height", "focal", "horizon", "noise", "hood", "hood_paint")
_CONDITIONS = ("Light_condition", "Weather", "Road_surface_condition")
# Drives have scenes of their own: seeds above the demo's (clips.py) and below those that train a base model.
_FIRST_SEED, _SEEDS_PER_DRIVE = 500_000_000, 1_000
MOST_DRIVES = 400_000


@dataclass(frozen=True)
class DriveEvent:
    """One event of a drive, seconds from its start.

    Attributes:
        start_s, end_s: what a clip of the event would show.
        moment_s: the contact, or where a near miss turns away from it.
        values: the event's record.
    """

    event: str
    start_s: float
    moment_s: float
    end_s: float
    values: Mapping[str, str]


@dataclass(frozen=True)
class Leg:
    """A stretch of road: its scene, when it begins, and how much of it passes before its event's clip would begin."""

    scene: Scene
    start_s: float
    lead_s: float
    length_s: float

    @property
    def truth(self) -> DriveEvent | None:
        if self.scene.event == ORDINARY:
            return None
        end_s = self.start_s + self.scene.duration_s
        crash = self.scene.event == "crash"
        moment_s = self.start_s + self.scene.motion.impact_s if crash else end_s - CUE_LEAD
        return DriveEvent(self.scene.event, self.start_s + self.lead_s, moment_s, end_s, self.scene.values)


@dataclass(frozen=True)
class Drive:
    """A drive; its pictures are drawn one at a time."""

    seed: int
    fps: int
    legs: tuple[Leg, ...]

    @property
    def duration_s(self) -> float:
        return self.legs[-1].start_s + self.legs[-1].length_s

    @property
    def events(self) -> tuple[DriveEvent, ...]:
        return tuple(truth for leg in self.legs if (truth := leg.truth))

    @cached_property
    def _starts(self) -> list[float]:
        return [leg.start_s for leg in self.legs]

    def picture(self, t_s: float, size: tuple[int, int] = (320, 180)) -> np.ndarray:
        """The picture at `t_s` seconds, uint8 [H, W, 3]."""
        leg = self.legs[max(0, bisect_right(self._starts, t_s) - 1)]
        return render_frame(leg.scene, t_s - leg.start_s, size)

    def pictures(self, start_s: float, length_s: float, size: tuple[int, int] = (320, 180)) -> Iterator[np.ndarray]:
        """The pictures of a stretch, one after the other."""
        return (self.picture(start_s + index / self.fps, size) for index in range(round(length_s * self.fps)))


def sample_drive(seed: int, duration_s: float, num_events: int, event: str | None = None) -> Drive:
    """The drive of `seed`.

    Args:
        duration_s: its length in seconds.
        num_events: crashes and near misses in it.
        event: of which kind they are; None: half and half, by chance.

    Raises:
        ValueError: there is no room for so many events.
    """
    if not 0 <= seed < MOST_DRIVES:
        raise ValueError(f"seed={seed} of a drive is not in [0, {MOST_DRIVES - 1}]")
    rng = Random(f"drive {seed}")
    scene_seeds = iter(range(_FIRST_SEED + seed * _SEEDS_PER_DRIVE, _FIRST_SEED + (seed + 1) * _SEEDS_PER_DRIVE))
    kinds = [event or rng.choice(EVENTS) for _ in range(num_events)]
    drawn: list[tuple[Scene, float, float]] = []  # scene, lead, length
    for kind in kinds:
        scene, lead_s = sample_scene(next(scene_seeds), kind), rng.uniform(*LEAD_S)
        drawn.append((lengthened(scene, lead_s), lead_s, lead_s + scene.duration_s + HOLD_S))
    rest_s = duration_s - sum(length_s for _, _, length_s in drawn)
    if rest_s < LEAD_S[0]:
        raise ValueError(
            f"{num_events} events take {duration_s - rest_s:.0f} s, and the drive has {duration_s:g}; "
            "make it longer, or have fewer events"
        )
    num_legs = max(1, round(rest_s / LEG_S))
    shares = [rng.uniform(0.5, 1.5) for _ in range(num_legs)]
    for share in shares:
        length_s = rest_s * share / sum(shares)
        drawn.append((ordinary(sample_scene(next(scene_seeds)), length_s), 0.0, length_s))
    rng.shuffle(drawn)
    camera, legs, start_s = drawn[0][0], [], 0.0
    for scene, lead_s, length_s in drawn:
        legs.append(Leg(_seen_alike(scene, camera), start_s, lead_s, length_s))
        start_s += length_s
    return Drive(_FIRST_SEED + seed, rng.choice(FPS), tuple(legs))


def lengthened(scene: Scene, lead_s: float) -> Scene:
    """The same encounter after `lead_s` more seconds of coming closer; a near miss or crash as before."""
    motion = replace(scene.motion, impact_s=scene.motion.impact_s + lead_s)
    look = replace(scene.look, crossing_s=scene.look.crossing_s + lead_s * motion.ego_speed)
    duration_s = scene.duration_s + lead_s
    scene = replace(scene, motion=motion, look=look, duration_s=duration_s)
    return _with_steady_traffic(scene, duration_s)


def ordinary(scene: Scene, length_s: float) -> Scene:
    """The scene's road without its encounter: ego drives (or stands) on; a lane change stays where it leads to a lane
    of ego's own direction.
    """
    motion, changes = scene.motion, scene.scenario.ego == CHANGING and scene.scenario.two_way is False
    kept = changes and scene.scenario.group in ("rear", "block", "walk", "cross")
    middle_s = length_s / 2
    motion = replace(
        motion,
        impact_s=middle_s,
        ego_x_contact=motion.ego_x_contact if kept else motion.ego_x_start,
        third=None,
    )
    look = replace(scene.look, crossing_s=max(middle_s * motion.ego_speed, 12.0))
    scene = replace(scene, event=ORDINARY, values={}, motion=motion, look=look, duration_s=length_s)
    return _with_steady_traffic(scene, length_s)


def _with_steady_traffic(scene: Scene, length_s: float) -> Scene:
    """Traffic of ego's direction stays in sight as long as it does in a clip of 8 s, however long the leg."""
    speed, slower = scene.motion.ego_speed, min(1.0, 8.0 / length_s)
    traffic = tuple(
        extra if extra.oncoming or extra.speed == 0 else replace(extra, speed=speed + (extra.speed - speed) * slower)
        for extra in scene.traffic
    )
    return replace(scene, traffic=traffic)


def _seen_alike(scene: Scene, camera: Scene) -> Scene:
    """The scene through the camera, and in the conditions, of another one; its texts tell these."""
    look: Look = replace(scene.look, **{name: getattr(camera.look, name) for name in _CAMERA})
    truth = {**scene.truth, **{name: camera.truth[name] for name in _CONDITIONS}}
    truth["Note"] = note(Random(f"note of {scene.seed}"), truth)
    values = {} if scene.event == ORDINARY else {name: truth[name] for name in field_names(scene.event)}
    return replace(scene, look=look, truth=truth, values=values)
