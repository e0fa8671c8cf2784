import time

import pytest

from vlm_crash.schema.lines import read_lines

LABELLED = [
    "Road type: Rural",
    "- Road type: Rural",
    "* Road_type: Rural",
    "*  Road type:  Rural  ",
    "\u2022 Road type: Rural",
    "+ Road-type : Rural",
    "-Road type:Rural",
    "3. Road type: Rural",
    "12) ROAD TYPE: Rural",
    "(4) road type: Rural",
    "**Road type:** Rural",
    "**Road type**: Rural",
    "- **Road type:** Rural",
    "- **Road type**: Rural",
    "- **Road type: Rural**",
    "**3. Road type:** Rural",
    "7. **Road_type**: Rural",
    "1. - **Road_type** : **Rural**",
    "*Road type:* Rural",
    "*Road type: Rural*",
    "__Road type__: Rural",
    "_Road type_: Rural",
    "### Road type: Rural",
    "> - Road type: Rural",
    "\t- Road type: Rural",
    "\u2013 Road type\uff1a Rural",
    "***Road type:*** Rural",
]


@pytest.mark.parametrize("text", LABELLED)
def test_label_and_value_are_found_in_any_dress(text):
    (line,) = read_lines(text)
    assert line.label == "road type"
    assert text[slice(*line.value)].strip("*") == "Rural"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\u2028"])
def test_positions_count_every_line_ending(ending):
    text = ending.join(["Hello", "", "- Weather: Clear ", "talk"])
    lines = list(read_lines(text))
    assert [line.label for line in lines] == [None, None, "weather", None]
    assert text[slice(*lines[2].value)] == "Clear"
    assert text[lines[3].start : lines[3].end] == "talk"


@pytest.mark.parametrize(
    "value", ["**", "** a", "a **", "*a* b", ": x", "- Weather: y", "3. x", "_", "__a__", "\uff1a", "> #"]
)
def test_a_rendered_value_is_given_back_as_it_is(value):
    text = f"- Note: {value}"
    (line,) = read_lines(text)
    assert (line.label, text[slice(*line.value)]) == ("note", value)


@pytest.mark.parametrize("text", ["- **Note**: a **b**", "- **Note:** a **b**", "**Note** : a **b**"])
def test_emphasis_that_is_closed_at_the_label_leaves_the_value_alone(text):
    (line,) = read_lines(text)
    assert text[slice(*line.value)] == "a **b**"


def test_nothing_after_the_colon():
    for text in ("**Weather:**", "- Weather:", "**Weather**:", "Weather:  "):
        (line,) = read_lines(text)
        assert line.label == "weather"
        assert line.value[0] == line.value[1]


@pytest.mark.parametrize("text", ["", "no colon", "- ", "***", "1. 2. 3.", "x" * 500 + ": y", "-" * 300])
def test_lines_without_label(text):
    assert [line.label for line in read_lines(text)] in ([None], [])


@pytest.mark.parametrize("unit", [" ", "- ", "*", "**a", "1. ", "a:", "\n", "- a: b\n", "\ufeff", "_ ", "#", "x"])
def test_a_megabyte_takes_linear_time(unit):
    start = time.process_time()
    for _ in read_lines(unit * (1_000_000 // len(unit))):
        pass
    assert time.process_time() - start < 15
