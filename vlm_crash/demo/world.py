"""What a scene is made of: records, sizes and paints that the sampler writes and the drawing reads.

In: nothing. Out: frozen dataclasses. Must hold: plain data, so that scenes can be compared.
Units: metres, seconds, radians. Road frame: x to the right of the road's centre line, s ahead of the ego vehicle along
the road, heading 0 as ego drives.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vlm_crash.demo.scenarios import Scenario

Colour = tuple[int, int, int]

EVENTS = ("crash", "nearmiss")
ORDINARY = "ordinary"  # what the demo's drives show between two events (drives.py); no clip of the demo has it
EGO_HALF_WIDTH = 0.95
HOOD = 2.6  # from the camera to the ego vehicle's front
CUE_LEAD = 1.0  # seconds before the end at which a near miss turns away from its crash

# (length, half width, height) of what ego can meet
SIZES: Mapping[str, tuple[float, float, float]] = {
    "Sedan": (4.5, 0.9, 1.4),
    "SUV": (4.6, 1.0, 2.0),
    "Van": (5.2, 1.05, 2.7),
    "Truck": (7.5, 1.25, 3.6),
    "Motorcycle": (2.5, 0.45, 2.1),
    "Not_a_vehicle": (0.7, 0.35, 1.85),
}
PAINTS: tuple[Colour, ...] = (
    (200, 40, 40), (40, 70, 190), (235, 235, 235), (30, 32, 36), (150, 155, 160), (30, 120, 70),
    (225, 180, 40), (120, 60, 140), (230, 120, 30), (90, 60, 40), (60, 160, 190), (190, 170, 130),
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What varies without meaning (camera, colours, noise) and the geometry of the road."""

    exposure: float
    camera_height: float
    focal: float  # in picture widths
    horizon: float  # in picture heights
    noise: float
    hood: float  # in picture heights
    hood_paint: Colour
    ground_hue: float
    asphalt: int
    lane_width: float
    bend: float  # curvature, 1/m
    grade: float  # of the hill ahead
    mirrored: bool
    two_way: bool
    ours: tuple[int, ...]  # lanes of ego's direction
    crossing_s: float  # where the cross road lies, metres from ego at time 0
    randoms: tuple[float, ...]


@dataclass(frozen=True)
class Track:
    """The path of a road user relative to ego up to the contact; see motion.py."""

    kind: str
    paint: Colour
    s_contact: float
    x_start: float
    x_contact: float
    closing: float  # m/s along the road
    cross: float  # m/s across it
    heading_start: float
    heading_contact: float


@dataclass(frozen=True)
class Motion:
    """How the encounter runs, in the picture before mirroring."""

    impact_s: float
    change_s: float  # how long a lane change or a turn lasts
    ego_speed: float
    ego_x_start: float
    ego_x_contact: float
    other: Track
    third: Track | None
    apart: tuple[float, float]  # (x, s) by which a near miss opens


@dataclass(frozen=True)
class Extra:
    """A vehicle of the background traffic; the speed is relative to the road."""

    kind: str
    paint: Colour
    x: float
    s: float
    speed: float
    oncoming: bool


@dataclass(frozen=True)
class Scene:
    """A scene with its truth: `values` holds every field of `event`, as written into the CSV."""

    seed: int
    event: str
    scenario: Scenario
    values: Mapping[str, str]
    truth: Mapping[str, str]  # all crash fields, also of a near miss: what the drawing follows
    duration_s: float
    fps: int
    look: Look
    motion: Motion
    traffic: tuple[Extra, ...]


def lane_centre(index: float, lanes: int, lane_width: float) -> float:
    """x of a lane's middle in metres, lanes counted from the left.

    >>> [lane_centre(i, 2, 3.5) for i in (0, 1)]
    [-1.75, 1.75]
    """
    return (index - (lanes - 1) / 2) * lane_width
