"""plan predict: what it says, its exit codes, and what it refuses."""

import json

import pytest

from tests.cli.conftest import ROOT
from vlm_crash.cli import main
from vlm_crash.cli.plan_predict import CARDS

BASE = ROOT / "vlm_crash/demo/base"
ASKED = ("--model.path", "8B", "--data.num_frames", 32, "--data.batch_size", 4)


@pytest.fixture
def figures(tmp_path, capsys):
    """Exit code, figures and text of a plan."""

    def run(*args):
        code = main(["plan", "predict", *map(str, args), "--json", str(tmp_path / "new/plan.json")])
        return code, json.loads((tmp_path / "new/plan.json").read_text()), capsys.readouterr().out

    return run


def test_8b_on_16_gib_does_not_fit_as_it_is(figures):
    code, found, text = figures(*ASKED, "--gpu_memory", 16)
    assert code == 1 and not found["fits"] and "In fp16 on 16 GiB it does not fit" in text
    assert found["kinds"]["fp16"]["parts_gib"]["weights"] == pytest.approx(15.04, abs=0.01)
    assert found["proposals"][-1]["fits"] and "--model.load_in 8bit" in text and "With all of these it fits" in text
    for kind in found["kinds"].values():
        assert sum(kind["parts_gib"].values()) == pytest.approx(kind["peak_gib"])
        assert kind["fits"] == {card: kind["peak_gib"] <= size for card, size in CARDS.items()}


def test_what_is_proposed_fits_when_it_is_asked_for(figures):
    code, found, text = figures(*ASKED, "--gpu_memory", 16, "--model.vision_chunk", 8, "--model.load_in", "8bit")
    assert code == 0 and found["fits"] and "In 8 bits on 16 GiB it fits" in text
    code, chunked, _ = figures(*ASKED, "--gpu_memory", 23.6, "--model.vision_chunk", 8)
    assert code == 0 and found["peak_gib"] < chunked["peak_gib"] < 23.6


def test_settings_act(figures):
    peak = {}
    for name, *options in (
        ("plain",), ("frames", "--data.num_frames", 64), ("answer", "--answer_tokens", 30000),
        ("text", "--text_tokens", 9000), ("free", "--answer_tokens", 30000, "--model.decoding", "free"),
    ):  # fmt: skip
        peak[name] = figures("--model.path", "8B", "--model.vision_chunk", 1, *options)[1]["peak_gib"]
    assert peak["plain"] < min(peak["frames"], peak["text"], peak["answer"])
    found = figures("--model.path", BASE, "--model.attention", "auto")[1]
    assert found["fits"] and "auto is planned as math" in " ".join(found["notes"])


def test_a_free_answer_is_as_long_as_the_model_may_write(figures, tmp_path):
    config = tmp_path / "free.yaml"
    config.write_text("model:\n  decoding: free\n  max_new_tokens: 30000\n")

    def planned(*options):
        _, found, text = figures("--model.path", "8B", "--model.vision_chunk", 1, *options)
        return found["peak_gib"], text.split("answers of ")[1].split()[0]

    free = ("--model.decoding", "free")
    assert planned("-c", config) == planned(*free, "--answer_tokens", 30000)
    assert planned(*free, "--model.max_new_tokens", 30000) == planned("-c", config)
    assert planned("-c", config)[1] == "30,000"
    assert planned("-c", config, "--answer_tokens", 50)[1] == "50"
    assert planned("-c", config, "--model.decoding", "greedy")[1] == planned(*free)[1] == "1,024"


def test_nothing_helps_a_card_that_is_too_small(figures):
    code, _, text = figures("--model.path", "8B", "--gpu_memory", 4)
    assert code == 1 and "Nothing that can be set makes it fit" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpu_memory 0", "gpu_memory=0.0 is no memory in GiB"),
        ("--reserve -1", "reserve=-1.0 is no memory in GiB"),
        ("--model.load_in 3bit", "load_in='3bit' is not one of 8bit, 4bit"),
        ("--model.decoding quick", "decoding='quick' is not one of best_term, greedy, free"),
        ("--model.path nowhere", "model.path='nowhere' is no model folder"),
        ("--model.attention quick", "attention='quick' is not one of"),
        ("--model.vision_chunk 0", "model.vision_chunk=0 is below 1"),
        ("--data.num_frames 0", "data.num_frames=0 is below 1"),
        ("--data.batch_size 0", "data.batch_size=0 is below 1"),
        ("--model.decoding free --model.max_new_tokens 0", "model.max_new_tokens=0 is below 1"),
        ("--model.max_new_tokens 9", "--model.max_new_tokens has no effect here"),
        ("--model.decoding free --model.max_new_tokens 9 --answer_tokens 9", "--answer_tokens goes before it"),
        ("--answer_tokens 0", "answer_tokens=0 is below 1"),
        ("--gpus 2", "there is no option 'gpus'"),
    ],
)
def test_what_cannot_be(wrong, options, message):
    assert message in wrong("plan", "predict", *options.split())
