"""Where everybody is at a moment: the scene's paths as pure functions of time.

In: a scene and seconds from its start. Out: poses in the road frame (x across, s ahead of ego, heading). Must hold: up
to `CUE_LEAD` before the end nothing depends on the event; from there a crash runs on to the contact, and a near miss
slows the approach and opens a gap.
"""

import math
from dataclasses import dataclass

from vlm_crash.demo.scenarios import BACKING, STOPPED
from vlm_crash.demo.world import CUE_LEAD, ORDINARY, Motion, Scene, Track


@dataclass(frozen=True)
class Pose:
    """Metres and radians; `roll` turns a vehicle onto its side, `after` grows from 0 to 1 at the contact."""

    x: float
    s: float
    heading: float
    roll: float = 0.0
    after: float = 0.0
    braking: bool = False
    reversing: bool = False


@dataclass(frozen=True)
class EgoState:
    """x across the road, travelled metres, yaw to the right, roll and jolt of the camera."""

    x: float
    travelled: float
    yaw: float
    roll: float
    jolt: float


def smoothstep(t: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, smooth between.

    >>> smoothstep(1.5, 1.0, 2.0)
    0.5
    """
    if t <= start:
        return 0.0
    if t >= end:
        return 1.0
    u = (t - start) / (end - start)
    return u * u * (3 - 2 * u)


def approach_clock(scene: Scene, t_s: float) -> float:
    """The time at which the common approach is read: it stops at the contact, or before it in a near miss."""
    impact = scene.motion.impact_s
    if scene.event == ORDINARY:
        return t_s
    if scene.event == "crash":
        return min(t_s, impact)
    turn = scene.duration_s - CUE_LEAD
    if t_s <= turn:
        return t_s
    room = 0.4 * (impact - turn)
    return turn + room * (1 - math.exp(-(t_s - turn) / room))


def aftermath(scene: Scene, t_s: float) -> float:
    """0 up to the contact of a crash, 1 from 0.12 s later; always 0 in a near miss."""
    return smoothstep(t_s, scene.motion.impact_s, scene.motion.impact_s + 0.12) if scene.event == "crash" else 0.0


def parting(scene: Scene, t_s: float) -> float:
    """0 up to the cue of a near miss, 1 from 0.45 s later; always 0 in a crash."""
    start = scene.duration_s - CUE_LEAD
    return smoothstep(t_s, start, start + 0.45) if scene.event == "nearmiss" else 0.0


def _changed(motion: Motion, clock: float) -> float:
    """How much of a lane change or turn is done: it ends at the contact."""
    return smoothstep(clock, motion.impact_s - motion.change_s, motion.impact_s)


def _change_rate(motion: Motion, clock: float) -> float:
    return (_changed(motion, clock + 0.1) - _changed(motion, clock - 0.1)) / 0.2


def ego_state(scene: Scene, t_s: float) -> EgoState:
    motion = scene.motion
    clock, after = approach_clock(scene, t_s), aftermath(scene, t_s)
    shift = motion.ego_x_contact - motion.ego_x_start
    x = motion.ego_x_start + shift * _changed(motion, clock)
    yaw = 1.1 * math.atan2(shift * _change_rate(motion, clock), max(motion.ego_speed, 3.0))
    apart_x = motion.apart[0] * parting(scene, t_s)
    bump = math.sin(9 * t_s + scene.seed % 7) * 0.004 * (motion.ego_speed > 0)
    tilt = math.copysign(0.05 + 0.05 * scene.look.randoms[1], 0.5 - scene.look.randoms[0])
    roll = tilt * after * (1 + 0.5 * math.cos(40 * (t_s - motion.impact_s)))
    jolt = bump + after * 0.03 * math.sin(55 * (t_s - motion.impact_s))
    return EgoState(x - 0.5 * apart_x, motion.ego_speed * clock, yaw, roll, jolt)


def _approach(track: Track, motion: Motion, clock: float) -> Pose:
    """The other road user before the contact, x across the road."""
    left = motion.impact_s - clock
    done = _changed(motion, clock)
    x = track.x_contact + (track.x_start - track.x_contact) * (1 - done) - track.cross * left
    turned = smoothstep(clock, motion.impact_s - 0.8 * motion.change_s, motion.impact_s)
    heading = track.heading_start + (track.heading_contact - track.heading_start) * turned
    if not track.cross and abs(track.heading_contact - track.heading_start) < 0.5:  # it points where it drives
        sideways = _change_rate(motion, clock) * (track.x_contact - track.x_start)
        heading += (1.2 if abs(heading) < 1 else -1.2) * math.atan2(sideways, 5.0)
    return Pose(x, track.s_contact + track.closing * left, heading)


def other_pose(scene: Scene, t_s: float) -> Pose:
    """The road user that ego meets."""
    motion = scene.motion
    pose = _approach(motion.other, motion, approach_clock(scene, t_s))
    gap, after = parting(scene, t_s), aftermath(scene, t_s)
    x, s, heading, roll = pose.x, pose.s, pose.heading, 0.0
    if gap:
        x, s = x + 0.5 * motion.apart[0] * gap, s + motion.apart[1] * gap
        x += motion.other.cross * max(0.0, t_s - (scene.duration_s - CUE_LEAD)) * 0.6
    if after:
        sign = 1 if scene.look.randoms[2] < 0.5 else -1
        heading += sign * after * (0.15 + 0.2 * scene.look.randoms[3])
        s += after * (1.2 + 1.5 * (scene.scenario.group in ("cross", "turn", "block", "head", "rear")))
        if scene.scenario.group in ("swipe", "oncoming"):
            x += math.copysign(0.5, x - motion.ego_x_contact) * after
        if scene.truth["Crash_severity"] == "Fatal":
            roll = sign * after * (1.75 if scene.truth["Crash_with"] != "Pedestrian" else 1.57)
            s += 1.5 * after
        elif scene.truth["Crash_with"] == "Pedestrian":
            roll = sign * after * 0.8
    braking = scene.scenario.other == STOPPED or (gap > 0 and scene.scenario.group == "rear")
    return Pose(x, s, heading, roll, after, braking, scene.scenario.other == BACKING)


def lead_pose(scene: Scene, t_s: float) -> Pose | None:
    """Who drives (or stands) ahead of ego in ordinary driving, at a distance that sways but stays; mostly somebody."""
    there, far, sway = scene.look.randoms[60:63]
    if there > 0.65:
        return None
    stands = scene.motion.ego_speed == 0
    s = 7.5 + 5 * far if stands else 11.0 + 14 * far + 2.5 * math.sin(math.tau * (t_s / 14.0 + sway))
    return Pose(scene.motion.ego_x_start + 0.4 * sway - 0.2, s, 0.0, braking=stands)


def third_pose(scene: Scene, t_s: float) -> Pose | None:
    """A further vehicle that comes to the two, if there is one."""
    track = scene.motion.third
    if track is None:
        return None
    motion, clock = scene.motion, approach_clock(scene, t_s)
    other, here = _approach(motion.other, motion, clock), other_pose(scene, t_s)
    done = smoothstep(clock, motion.impact_s - 1.6, motion.impact_s)
    x = here.x + track.x_start + (track.x_contact - track.x_start) * done
    s = here.s + track.s_contact + track.closing * max(0.0, motion.impact_s - clock) + max(0.0, other.s - here.s)
    heading = track.heading_start + (track.heading_contact - track.heading_start) * done
    return Pose(x, s + 2.0 * parting(scene, t_s), heading, 0.0, aftermath(scene, t_s), braking=done > 0.3)
