"""Another lab's schema works without a change of code."""

from vlm_crash.schema import UNKNOWN, Annotation, parse, render, to_term


def test_three_events_of_other_fields(mine):
    assert mine.event_names == ("fall", "conflict", "nothing")
    assert mine.event("conflict").field_names == ("Rider_count", "Helmet", "Partner", "Yield")
    assert mine.field("Partner").columns == ("Partner kind",)
    assert mine.field("Helmet").columns == ("Helmet",)


def test_its_text(mine):
    record = Annotation.of(mine, "fall", {"Rider_count": "two", "Helmet": "bare-headed", "Cause": "ice: black"})
    text = render(mine, record)
    assert text == (
        "What happened: a rider fell.\n\n**People:**\n- Riders: 2\n- Helmet worn: No\n\n"
        "**The fall:**\n- What made them fall: ice: black"
    )
    assert parse(mine, text).values == {"Rider_count": "2", "Helmet": "No", "Cause": "ice: black"}


def test_its_openings_tell_its_events(mine):
    for event in mine.events:
        text = render(mine, Annotation.of(mine, event.name, {}))
        parsed = parse(mine, text)
        assert parsed.event == event.name
        assert set(parsed.values.values()) == {UNKNOWN}
    assert parse(mine, "Nobody fell. An uneventful passage.").event == "nothing"
    assert parse(mine, "A conflict, then a fall.").event is None
    assert parse(mine, "This is a crash scenario.").event is None


def test_its_words(mine):
    helmet, pavement = mine.field("Helmet"), mine.field("Pavement")
    assert to_term(helmet, "All wore helmets.") == "Yes"
    assert to_term(helmet, "helmets seen") is None
    assert to_term(helmet, "helmets seen, one of two") == "Some"
    assert to_term(pavement, "asphalt / concrete") == "Asphalt/Concrete"
    assert to_term(pavement, "not gravel") is None


def test_its_messy_answers(mine):
    text = (
        "**CONFLICT**\r\n1) **number_of-riders**: three riders\r\n* who gave way:  SECOND-RIDER\r\nOther party: dog\r\n"
    )
    parsed = parse(mine, text)
    assert parsed.event == "conflict"
    assert parsed.values == {"Rider_count": "3", "Yield": "Second rider", "Partner": "dog"}
    assert parsed.answers["Helmet"].status == "missing"
