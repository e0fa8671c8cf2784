"""Everyday wordings of sides: swapped, kept, or in doubt; none that tells a side comes back as it was."""

import re

from vlm_crash.schema import load_schema
from vlm_crash.schema.mirror import Mirror
from vlm_crash.schema.side_words import SideWords, expanded

MIRROR = load_schema().mirror

SWAPPED = """
    The car made a right at the intersection. = The car made a left at the intersection.
    It was making a right at the light. = It was making a left at the light.
    The car took the next left. = The car took the next right.
    It took a sharp right and stopped. = It took a sharp left and stopped.
    a left-turning truck = a right-turning truck
    a right turner = a left turner
    turned right at the intersection = turned left at the intersection
    turned left onto Main Street = turned right onto Main Street
    turning right into the left lane = turning left into the right lane
    veered left. The road was wet = veered right. The road was wet
    moved to right lane = moved to left lane
    keep right = keep left
    drifted left of the line = drifted right of the line
    on the righthand side = on the lefthand side
    in the left-hand lane = in the right-hand lane
    on the leftside of the road = on the rightside of the road
    the leftmost of three = the rightmost of three
    in the right-most lane = in the left-most lane
    drifted leftward = drifted rightward
    drove rightwards = drove leftwards
    the right-front corner = the left-front corner
    rear_left wheel = rear_right wheel
    frontleft damage = frontright damage
    the right front tire = the left front tire
    hit on the left rear quarter panel = hit on the right rear quarter panel
    its left blinker on = its right blinker on
    LEFT LANE = RIGHT LANE
    the vehicle on its left = the vehicle on its right
    on the right in front of us = on the left in front of us
    from the right right in front of us = from the left right in front of us
    from the Left lane right in front of us = from the Right lane right in front of us
    from left to right = from right to left
    looked left and right = looked right and left
    second lane from the left = second lane from the right
    spun clockwise = spun counterclockwise
    on the LHS = on the RHS
    drove on the left = drove on the right
    It took the right. = It took the left.
    took the right at the light = took the left at the light
    took the right lane = took the left lane
    made the right turn = made the left turn
    made a right turn onto the ramp = made a left turn onto the ramp
    the right back door = the left back door
    hit the right front of the van = hit the left front of the van
"""
KEPT = """
    right of way / failed to yield the right-of-way to ego / due to right of way violation / right away / right now
    all right / alright / bright lights / upright / a brighter one / was frightened / at a right angle
    The van stopped right in front of us / the car right behind us / right next to ego / right after the collision
    left the road / has left the road / It had left its lane. / left our lane / left a parking space / left no room
    the car in front left its lane / landed right side up / at least two cars / the slowest car / three-lane road
    the wrong side of the road / the opposite lane / both sides / the far side / a U-turn / Sideswipe / broadside
"""
IN_DOUBT = """
    It left. / has left / was left with damage / it has left damage / left of us / (left) / right. / exit right
    goes right behind the truck / went right through the red light / the car to right in front of us
    turned right in front of us / turned right behind the van / merged right in front of us / swerved right into us
    veers right at the last moment / looked right before entering / turns right as it came
    took a right after the bridge / took a right before the bus / took a left a block later / after a right at the light
    a right after the collision / made an immediate right before the bus / executed an odd right in front of the school
    on the right track / braked at the right moment / the right decision / unable to right the vehicle
    hit the left a-pillar / the left- and right-hand lanes / left/right lanes / hardright / a lefty / in the right
    from the 3 o'clock position / at 9 o\u2019clock / spun counter-clockwise / anticlockwise / anti-clockwise
    the nearside lane / on the offside / near-side / driver-side door / driver's side / the passenger\u2019s side
    heading north / the eastbound lanes / a van from the west / NB lanes / the southwest corner / drove W
    took the right action to avoid it / made the right call / made the right move / took the right precautions
    took the right steps / took the right evasive action / a right decision / made a right move
    cut right back in front of us / pulled right back / came right back / drove right back into the lane
    stopped right front of us / turned right around / turned right back / moved right alongside
    bore right down on us / drifted right by / veered right against it / at the right position / at the right second
    to the right extent / on the right foot / with the right response / from the right measures
    took another right step / merged right between them / swerved right just in time / at the right following distance
    hard right back into the lane / to the right back in front of us / right rear-ended us / came right side by side
    right half a second later
    in the second lane / lane 2 / lane #3 / the 1st lane / kerbside / a hook turn
"""


def phrases(block: str) -> list[str]:
    return [phrase for line in block.strip().splitlines() for phrase in re.split(r" / ", line.strip())]


def test_everyday_wordings():
    said = dict(line.strip().split(" = ") for line in SWAPPED.strip().splitlines())
    kept, in_doubt = phrases(KEPT), phrases(IN_DOUBT)
    assert len(said) + len(kept) + len(in_doubt) > 120
    expected = {**said, **{there: here for here, there in said.items()}, **dict.fromkeys(in_doubt)}
    expected |= dict(zip(kept, kept, strict=True))
    wrong = {text: MIRROR.text(text) for text, mirrored in expected.items() if MIRROR.text(text) != mirrored}
    assert not wrong


def test_no_word_of_the_table_comes_back_as_it_was():
    """Of every pair, alone and before what makes "right" a "directly": swapped, or in doubt."""
    for pair in MIRROR.pairs:
        for here, there in zip(*map(expanded, pair), strict=True):
            assert (MIRROR.text(here), MIRROR.text(there)) == (there, here)
            for rest in (" in front of us", " behind it", " next to it", " before it", " the road", " a gap"):
                assert MIRROR.text(here + rest) != here + rest


def test_left_that_is_no_side_beside_one_that_is():
    assert MIRROR.text("The car on the right left its lane.") == "The car on the left left its lane."
    assert MIRROR.text("The van turned left in front of us.") == "The van turned right in front of us."
    assert MIRROR.text("The van turned right in front of us.") is None  # it may be "directly"
    assert MIRROR.sides("It spun clockwise.") == {"right"}
    assert MIRROR.sides("turned right in front of us") == frozenset()


def test_what_a_wording_may_be_written_with():
    words = SideWords([("d'en (bas|haut) links", "d'en (bas|haut) rechts")], {"keep": ["*recht", "o'clock"]})
    texts = ("D'en-haut LINKS", "d en bas links", "d'en bas - links", "Unrecht", "rechts", "at 3 o'clock", "o clock")
    assert [[one.kind for one in words.found(text)[1]] for text in texts] == [
        ["pair"], [], [], ["keep"], [], ["keep"], [],
    ]  # fmt: skip
    uneven = Mirror((("backbord", "am Steuer bord"), ("b", "am Steuer")))
    assert uneven.text("es kam von backbord") == "es kam von am steuer bord"
    assert uneven.text(uneven.text("es kam von backbord")) == "es kam von backbord"
