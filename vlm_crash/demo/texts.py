"""The three free texts of a record, told from the facts that the picture shows; only the wording is drawn.

In: the scenario's name, the other fields' terms, the side. Out: one or two sentences.
"""

from collections.abc import Mapping
from random import Random

_NOUNS = {
    "Sedan": "sedan",
    "SUV": "SUV",
    "Van": "van",
    "Truck": "truck",
    "Motorcycle": "motorcycle",
    "Not_a_vehicle": "pedestrian",
}

# scenario -> wordings of how it came about; {o} the other road user, {side} left or right
_REASONS: Mapping[str, tuple[str, ...]] = {
    "rear_standing": (
        "The ego vehicle failed to stop for the {o} standing ahead in its lane.",
        "A {o} stood in the lane and the ego vehicle did not stop in time.",
    ),
    "rear_slower": (
        "The ego vehicle followed the slower {o} ahead too closely.",
        "The {o} ahead drove slowly and the ego vehicle did not keep its distance.",
    ),
    "rear_cut_in": (
        "The {o} cut in from the {side} lane right in front of the ego vehicle.",
        "From the {side} lane the {o} moved over just ahead of the ego vehicle.",
    ),
    "rear_backing": (
        "The {o} ahead backed up towards the stopped ego vehicle.",
        "The ego vehicle stood still while the {o} ahead reversed into its way.",
    ),
    "rear_merge_standing": (
        "The ego vehicle changed lanes behind a {o} that stood there.",
        "Changing lanes, the ego vehicle did not stop for the standing {o}.",
    ),
    "rear_both": (
        "The ego vehicle and the {o} moved into the same lane from both sides.",
        "Both the ego vehicle and the {o} changed into the lane between them.",
    ),
    "cross": (
        "The {o} ran across from the {side} into the way of the ego vehicle.",
        "Coming from the {side}, the {o} crossed in front of the ego vehicle without yielding.",
    ),
    "cross_both": (
        "The ego vehicle was changing lanes when the {o} crossed from the {side}.",
        "The {o} crossed from the {side} while the ego vehicle left its lane.",
    ),
    "turn": (
        "The oncoming {o} turned across the path of the ego vehicle.",
        "The {o} came towards the ego vehicle and turned in front of it without yielding.",
    ),
    "turn_stopped": (
        "The oncoming {o} turned into the stopped ego vehicle.",
        "The ego vehicle stood still while the {o} turned across its front.",
    ),
    "turn_both": (
        "The ego vehicle was changing lanes while the oncoming {o} turned across.",
        "The oncoming {o} turned across as the ego vehicle left its lane.",
    ),
    "block": (
        "The ego vehicle failed to stop for the {o} standing across the road.",
        "A {o} stood across the lane and the ego vehicle drove on.",
    ),
    "block_merge": (
        "The ego vehicle changed lanes towards a {o} standing across the road.",
        "Changing lanes, the ego vehicle did not see the {o} that stood across the road.",
    ),
    "swipe_other": (
        "The {o} in the {side} lane moved over into the lane of the ego vehicle.",
        "From the {side}, the {o} drifted into the ego vehicle's lane.",
    ),
    "swipe_ego": (
        "The ego vehicle moved over towards the {o} in the {side} lane.",
        "The ego vehicle left its lane to the {side}, where the {o} was driving.",
    ),
    "swipe_both": (
        "The ego vehicle and the {o} on the {side} moved towards each other.",
        "Both the {o} on the {side} and the ego vehicle left their lanes at once.",
    ),
    "oncoming_other": (
        "The oncoming {o} drifted over the centre line along the ego vehicle.",
        "The {o} coming the other way left its lane and passed too close.",
    ),
    "oncoming_ego": (
        "The ego vehicle drifted over the centre line towards the passing oncoming {o}.",
        "The ego vehicle left its lane and passed the oncoming {o} too closely.",
    ),
    "oncoming_both": (
        "The ego vehicle and the oncoming {o} both drifted to the centre line.",
        "Both the oncoming {o} and the ego vehicle left their lanes while passing.",
    ),
    "oncoming_stopped": (
        "The oncoming {o} drifted along the stopped ego vehicle.",
        "The ego vehicle stood still while the oncoming {o} left its lane and passed too close.",
    ),
    "head_other": (
        "The oncoming {o} came over the centre line straight at the ego vehicle.",
        "The {o} left its lane and drove head-on at the ego vehicle.",
    ),
    "head_ego": (
        "The ego vehicle moved into the opposite lane in front of the oncoming {o}.",
        "The ego vehicle left its lane and met the oncoming {o} head-on.",
    ),
    "head_both": (
        "The ego vehicle and the oncoming {o} met on the centre line.",
        "Both the oncoming {o} and the ego vehicle left their lanes and met head-on.",
    ),
    "head_stopped": (
        "The {o} drove on the wrong side straight at the stopped ego vehicle.",
        "The ego vehicle stood still while the {o} came head-on in the same lane.",
    ),
    "walk_dash": (
        "The pedestrian ran into the road from the {side} where there is no crossing.",
        "A pedestrian stepped out from the {side} away from any crossing.",
    ),
    "walk_zebra": (
        "The ego vehicle did not yield to the pedestrian on the zebra crossing.",
        "A pedestrian used the zebra crossing from the {side} and the ego vehicle drove on.",
    ),
    "walk_both": (
        "The ego vehicle was changing lanes when a pedestrian ran out from the {side}.",
        "A pedestrian crossed from the {side} away from any crossing while the ego vehicle left its lane.",
    ),
}

_HITS = {
    "Rear_end": "It hit the rear bumper.",
    "Angle": "It was hit from the side.",
    "Sideswipe": "Their sides scraped along each other.",
    "Head_on": "They met front to front.",
}
_AVOIDED = {
    "rear": ("The ego vehicle braked hard and a clear gap remained.", "Hard braking kept a clear gap."),
    "side": ("The ego vehicle braked hard and stopped short.", "Hard braking let it pass in front."),
    "beside": (
        "Both moved apart again and passed with a clear gap.",
        "Swerving away left a clear gap between the sides.",
    ),
    "head": ("Both swerved apart and a clear gap remained.", "Swerving away at the last moment left a clear gap."),
}
_AVOIDED_STANDING = {  # where ego stood still
    "rear": ("The {o} ahead stopped in time and a clear gap remained.", "The {o} ahead braked and kept a clear gap."),
    "side": ("The {o} stopped its turn with a clear gap.", "The {o} braked and a clear gap remained."),
    "beside": (
        "The {o} moved away again and passed with a clear gap.",
        "The {o} swerved back and left a clear gap between the sides.",
    ),
    "head": ("The {o} braked and swerved, and a clear gap remained.", "The {o} swerved away and left a clear gap."),
}
_GROUP = {
    "rear": "rear",
    "cross": "side",
    "turn": "side",
    "block": "side",
    "walk": "side",
    "swipe": "beside",
    "oncoming": "beside",
    "head": "head",
}
_SURFACE = {"Dry": "dry", "Wet": "wet", "Icy": "icy", "Snowy": "snow-covered"}
_TRAFFIC = {"Light_traffic": "light", "Moderate_traffic": "moderate", "Heavy_traffic": "heavy"}
_LIGHT = {
    "Daylight": "by day",
    "Dark_lighted": "at night under street lamps",
    "Dark_unlighted": "at night without street lamps",
    "Dawn_dusk": "at dawn or dusk",
}
_SEVERITY = {
    "Property_damage_only": "Only small debris and a dent are seen.",
    "Injury": "The body is deformed, debris flies and smoke rises.",
    "Fatal": "The other vehicle is overturned and burns.",
}
_WALK_SEVERITY = {
    "Injury": "The pedestrian is knocked over.",
    "Fatal": "The pedestrian lies on the road and the windscreen is broken.",
}


def _reason(rng: Random, name: str, truth: Mapping[str, str], side: str) -> str:
    return rng.choice(_REASONS[name]).format(o=_NOUNS[truth["Crash_vehicle_type"]], side=side)


def crash_reason(rng: Random, name: str, truth: Mapping[str, str], side: str) -> str:
    """How the crash came about, and where the other was hit."""
    hit = "The pedestrian was hit." if name.startswith("walk") else _HITS[truth["Crash_type"]]
    return f"{_reason(rng, name, truth, side)} {hit}"


def avoid_reason(rng: Random, name: str, truth: Mapping[str, str], side: str) -> str:
    """How the near miss came about, and how the crash was avoided."""
    ways = _AVOIDED_STANDING if truth["Ego_pre_avoid_movement"] == "Stopped" else _AVOIDED
    avoided = rng.choice(ways[_GROUP[name.split("_")[0]]]).format(o=_NOUNS[truth["Crash_vehicle_type"]])
    return f"{_reason(rng, name, truth, side)} {avoided}"


def note(rng: Random, truth: Mapping[str, str]) -> str:
    """The circumstances and the outcome."""
    surface, traffic, light = (
        _SURFACE[truth["Road_surface_condition"]],
        _TRAFFIC[truth["Traffic_condition"]],
        _LIGHT[truth["Light_condition"]],
    )
    first = rng.choice(
        (
            f"It happened {light} on a {surface} road in {traffic} traffic.",
            f"The road was {surface} and traffic was {traffic}, {light}.",
        )
    )
    severity = (_WALK_SEVERITY if truth["Crash_with"] == "Pedestrian" else _SEVERITY)[truth["Crash_severity"]]
    third = int(truth["Total_number_of_vehicles"]) > (1 if truth["Crash_with"] == "Pedestrian" else 2)
    return f"{first} {severity}" + (" A further vehicle ran into the scene." if third else "")
