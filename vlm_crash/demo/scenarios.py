"""Who meets whom, and how: the table of encounters that a drawn scene can show.

In: nothing. Out: `SCENARIOS`, each a way in which the ego vehicle and another road user come together, with the terms
that follow from it. Must hold: `Guilty` obeys one rule that the picture shows. Somebody is at fault who leaves the
lane, turns or crosses into the way of the other, backs up, drives on the wrong side, or fails to stop for what stands,
drives slowly or walks on a marked crossing ahead; both where both do so.
"""

from dataclasses import dataclass

STRAIGHT = "Proceeding_straight"
CHANGING = "Changing_lanes"
STOPPED = "Stopped"
BACKING = "Backing"
TURNING = "Making_left_turn"  # becomes Making_right_turn in a mirrored scene (traffic on the left)
CROSSING = "Crossing_road"


@dataclass(frozen=True)
class Scenario:
    """One kind of encounter.

    `group` decides the geometry, `ego_shift` and `other_shift` the share of the way between the lanes that each covers.
    """

    name: str
    group: str  # rear, cross, turn, block, swipe, oncoming, head, walk
    ego: str
    other: str
    guilty: str
    weight: float
    ego_shift: float = 0.0
    other_shift: float = 0.0
    min_lanes: int = 1
    two_way: bool | None = None  # None: either
    zebra: bool = False


# Weights: chosen so that no term of any field exceeds 60 % and most are near uniform (tests/demo counts them).
SCENARIOS: tuple[Scenario, ...] = (
    Scenario("rear_standing", "rear", STRAIGHT, STOPPED, "Yes", 4.5),
    Scenario("rear_slower", "rear", STRAIGHT, STRAIGHT, "Yes", 3.0),
    Scenario("rear_cut_in", "rear", STRAIGHT, CHANGING, "No", 4.0, other_shift=1, min_lanes=2, two_way=False),
    Scenario("rear_backing", "rear", STOPPED, BACKING, "No", 7.0),
    Scenario("rear_merge_standing", "rear", CHANGING, STOPPED, "Yes", 3.5, ego_shift=1, min_lanes=2, two_way=False),
    Scenario(
        "rear_both", "rear", CHANGING, CHANGING, "Both", 4.0, ego_shift=1, other_shift=1, min_lanes=3, two_way=False
    ),
    Scenario("cross", "cross", STRAIGHT, STRAIGHT, "No", 4.0),
    Scenario("cross_both", "cross", CHANGING, STRAIGHT, "Both", 4.0, ego_shift=1, min_lanes=2, two_way=False),
    Scenario("turn", "turn", STRAIGHT, TURNING, "No", 4.0, min_lanes=2, two_way=True),
    Scenario("turn_stopped", "turn", STOPPED, TURNING, "No", 5.5, min_lanes=2, two_way=True),
    Scenario("turn_both", "turn", CHANGING, TURNING, "Both", 4.5, ego_shift=1, min_lanes=3, two_way=True),
    Scenario("block", "block", STRAIGHT, STOPPED, "Yes", 3.5),
    Scenario("block_merge", "block", CHANGING, STOPPED, "Yes", 3.5, ego_shift=1, min_lanes=2, two_way=False),
    Scenario("swipe_other", "swipe", STRAIGHT, CHANGING, "No", 3.0, other_shift=1, min_lanes=2, two_way=False),
    Scenario("swipe_ego", "swipe", CHANGING, STRAIGHT, "Yes", 4.0, ego_shift=1, min_lanes=2, two_way=False),
    Scenario(
        "swipe_both",
        "swipe",
        CHANGING,
        CHANGING,
        "Both",
        3.5,
        ego_shift=0.5,
        other_shift=0.5,
        min_lanes=3,
        two_way=False,
    ),
    Scenario("oncoming_other", "oncoming", STRAIGHT, CHANGING, "No", 3.0, other_shift=1, min_lanes=2, two_way=True),
    Scenario("oncoming_ego", "oncoming", CHANGING, STRAIGHT, "Yes", 4.0, ego_shift=1, min_lanes=2, two_way=True),
    Scenario(
        "oncoming_both",
        "oncoming",
        CHANGING,
        CHANGING,
        "Both",
        3.5,
        ego_shift=0.5,
        other_shift=0.5,
        min_lanes=2,
        two_way=True,
    ),
    Scenario("oncoming_stopped", "oncoming", STOPPED, CHANGING, "No", 3.5, other_shift=1, min_lanes=2, two_way=True),
    Scenario("head_other", "head", STRAIGHT, CHANGING, "No", 2.5, other_shift=1, min_lanes=2, two_way=True),
    Scenario("head_ego", "head", CHANGING, STRAIGHT, "Yes", 4.0, ego_shift=1, min_lanes=2, two_way=True),
    Scenario(
        "head_both", "head", CHANGING, CHANGING, "Both", 4.0, ego_shift=0.5, other_shift=0.5, min_lanes=2, two_way=True
    ),
    Scenario("head_stopped", "head", STOPPED, STRAIGHT, "No", 5.0),
    Scenario("walk_dash", "walk", STRAIGHT, CROSSING, "No", 3.5),
    Scenario("walk_zebra", "walk", STRAIGHT, CROSSING, "Yes", 6.0, zebra=True),
    Scenario("walk_both", "walk", CHANGING, CROSSING, "Both", 5.0, ego_shift=1, min_lanes=2, two_way=False),
)

# group -> (Crash_type, Type_of_impact)
IMPACTS = {
    "rear": ("Rear_end", "Front_to_rear"),
    "cross": ("Angle", "Front_to_side"),
    "turn": ("Angle", "Front_to_side"),
    "block": ("Angle", "Front_to_side"),
    "walk": ("Angle", "Front_to_side"),
    "swipe": ("Sideswipe", "Sideswipe_same_direction"),
    "oncoming": ("Sideswipe", "Sideswipe_opposite_direction"),
    "head": ("Head_on", "Head_on"),
}


def damaged_area(group: str, from_left: bool, mirrored: bool) -> str:
    """Where the other road user is hit. `from_left`: it stands on the left, or comes from there, before mirroring.

    >>> damaged_area("cross", from_left=True, mirrored=False)
    'Right_side'
    >>> damaged_area("oncoming", from_left=True, mirrored=True)
    'Right_side'
    """
    if group == "rear":
        return "Rear_center_bumper"
    if group == "head":
        return "Front_center_bumper"
    if group == "turn":  # comes towards us on the left and turns to its left: its right side faces us
        right = True
    elif group == "oncoming":  # passes on our left, facing us
        right = False
    else:  # from the left heading right, or beside us on the left: its right side
        right = from_left
    return "Right_side" if right != mirrored else "Left_side"
