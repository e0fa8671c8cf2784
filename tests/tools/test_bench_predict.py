"""tools/bench.py predict in its smallest form: every way answers, parts add up, ratios and counts are those of rows."""

import json
from pathlib import Path

import pytest
import torch
from bench import main
from benches.predict import bar_of, median_run, ratios_of
from benches.predict_checks import Count, count_answers
from benches.predict_ways import Run, Way, answer, old_frames, old_item, random_clips, system_for

from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample
from vlm_crash.schema.response import render

SMALL = ["--frames", "2", "--clips", "2", "--rounds", "1", "--least_tokens", "6"]
SMALL += ["--most_tokens", "400", "--text_tokens", "3"]


@pytest.fixture(scope="module")
def system(tiny_model: Path):
    return system_for(tiny_model, "weights", 2, most_tokens=5, most_text=3)


def test_a_small_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench predict speed -->\n<!-- end of bench predict speed -->\n")
    arguments = ["predict", "--parts", "speed", *SMALL]
    assert main([*arguments, "--json", str(tmp_path / "found.json"), "--markdown", str(page)]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["bars"], "they are of 200 tokens"
    table = found["tables"][0]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(rows) == ["a, free", "a", "a6", "b", "c", "d"]
    assert [row["clips at once"] for row in rows.values()] == [1, 1, 1, 2, 1, 2]
    for row in rows.values():
        parts = row["loading (s)"] + row["vision (s)"] + row["prefill (s)"] + row["decode (s)"]
        assert row["whole (s)"] == pytest.approx(parts) and min(row["vision (s)"], row["decode (s)"]) > 0
        assert row["language (s)"] == pytest.approx(row["prefill (s)"] + row["decode (s)"])
    assert rows["a"]["tokens"] == rows["a6"]["tokens"] == rows["a"]["passes"], "no answer is as short as 6 tokens"
    assert rows["b"]["passes / clip"] == pytest.approx(rows["b"]["passes"] / 2)
    same = [(row["fields"], row["longest text"]) for key, row in rows.items() if key != "a, free"]
    assert set(same) == {(same[0][0], same[0][1])} and same[0][0] >= 9 and 0 < same[0][1] <= 3, "led to one answer"
    ratio = found["ratios"]["language_seconds_a6_over_d (tiny, 2 frames)"]
    assert ratio == pytest.approx(rows["a6"]["language (s)"] / rows["d"]["language (s)"])
    assert "### Answers of the tiny model, 2 frames" in page.read_text()


def test_generate_and_free_decoding_say_the_same(system) -> None:
    clips = random_clips(system.recipe, 2)
    old = answer(system, clips, Way("a", "", None, False))
    new = answer(system, clips, Way("b", "", "free", True))
    assert old.texts == new.texts and old.clips == 2 and old.passes == 2 * 5
    forced = answer(system, clips, Way("a5", "", None, False, least_tokens=5))
    assert forced.tokens == 10


def test_the_old_frames_go_from_end_to_end(demo_clips: Path, system) -> None:
    file = demo_clips / "crash/1.mp4"
    frames_FHWC, duration_s = old_frames(file, 2)
    assert frames_FHWC.shape[0] == 2 and frames_FHWC.dtype == "uint8" and 1 < duration_s < 60
    item = old_item(system.recipe, VideoSample("clip:1", "1.mp4", file, None, None, None))
    ours = system.recipe.item(item.sample, supervised=False)
    assert item.pixel_values_F3HW.shape == ours.pixel_values_F3HW.shape
    assert torch.equal(item.input_ids_S, ours.input_ids_S)
    assert not torch.equal(item.pixel_values_F3HW, ours.pixel_values_F3HW), "other frames"


def test_the_model_with_eager_attention_has_the_same_tensors(system) -> None:
    model = system.modules["free"].model
    assert system.eager.config.text_config._attn_implementation == "eager"
    assert model.config.text_config._attn_implementation == "sdpa"
    mine, other = dict(model.named_parameters()), dict(system.eager.named_parameters())
    assert mine.keys() == other.keys() and all(mine[name] is other[name] for name in mine)


def test_medians_and_ratios() -> None:
    runs = [Run(loading=k, vision=1.0, prefill=2.0, decode=3.0 * k, passes=10, clips=2) for k in (1, 5, 2)]
    middle = median_run(runs)
    assert (middle.loading, middle.decode, middle.language, middle.seconds) == (2, 6, 8, 11)
    way = {"a": Run(1, 1, 1, 7, 20, 2), "a200": Run(2, 2, 2, 14, 60, 2), "b": middle, "c": middle}
    found = ratios_of({**way, "d": Run(1, 1, 1, 1, 15, 4)}, 200, is_whole=True)
    assert found["language_seconds_a200_over_d"] == pytest.approx((16 / 2) / (2 / 4))
    assert found["language_passes_d_over_a200"] == pytest.approx(15 / 30), "a batch's passes are not divided"
    assert found["end_to_end_a200_over_d"] == pytest.approx((20 / 2) / (4 / 4))
    assert not any("end_to_end" in name for name in ratios_of({**way, "d": middle}, 200, is_whole=False))


@pytest.mark.parametrize(("seconds", "is_met"), [(6.1, True), (5.9, False)])
def test_a_missed_bar_is_told(seconds: float, is_met: bool) -> None:
    bar = bar_of("language_seconds_a200_over_d", "tiny, 2 frames", seconds)
    assert bar.is_met == is_met
    assert bar.what == f"language_seconds_a200_over_d (tiny, 2 frames) is {seconds:.2f}, at least 6"
    assert bar_of("language_passes_d_over_a200", "tiny, 2 frames", 0.3).is_met


def prediction(response: str, **options) -> Prediction:
    return Prediction("1.mp4", None, None, {}, options.get("probabilities", {}), response, "ok")


def test_fields_are_counted_as_they_read() -> None:
    schema, scene = load_schema(), sample_scene(3)
    right = render(schema, Annotation.of(schema, scene.event, scene.values))
    num_fields = len(schema.event(scene.event).fields)
    count = Count()
    count.add(schema, prediction(right))
    assert (count.fields, sum(count.violations.values())) == (num_fields, 0)
    label = schema.event(scene.event).field("Weather").label
    weather = scene.values["Weather"]
    count.add(schema, prediction(right.replace(f"{label}: {weather}", f"{label}: Purple")))
    assert dict(count.violations) == {("Weather", "not_understood"): 1}
    wrong = {"Weather": {"Clear": 0.7, weather: 0.1}}
    count.add(schema, prediction(right, probabilities=wrong))
    assert dict(count.probabilities) == {"Weather": 1}
    count.add(schema, prediction("Nothing of the kind."))
    assert sum(count.violations.values()) == 1 + 9 and count.events["none"] == 1


def test_answers_of_random_weights_are_counted() -> None:
    found = count_answers(3, text_tokens=2)
    figures = dict(found.tables[0].rows)
    assert figures["answers"] == 3 and figures["fields"] >= 3 * 9
    assert found.ratios["violations"] == figures["fields without a valid value"] <= figures["fields"]


def test_accuracy_of_both_decodings(tmp_path: Path, tiny_model: Path, prepared: Path) -> None:
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit/model").symlink_to(tiny_model)
    (tmp_path / "dataset").symlink_to(prepared)
    file = tmp_path / "found.json"
    arguments = ["predict", "--parts", "accuracy", "--demo", str(tmp_path), "--most_tokens", "6", "--json", str(file)]
    assert main(arguments) == 0
    found = json.loads(file.read_text())
    rows = {row[0]: row[1:] for row in found["tables"][0]["rows"]}
    assert {"mean", "event/balanced_accuracy"} <= rows.keys()
    assert all(form - free == pytest.approx(difference) for free, form, difference in rows.values())
    with pytest.raises(SystemExit, match="needs a folder that"):
        main([*arguments[:4], str(tmp_path / "nowhere")])
