"""tools/bench.py: a small run writes every figure; its parts measure what they say."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from bench import main
from benches.common import side_by_side
from benches.memory import measured_peak
from benches.model import (
    PARTS,
    cache_bytes,
    plain_port,
    prefill,
    prefill_peak,
    random_model,
    shape_config,
    vision_peak,
)

from vlm_crash.models.attention import set_attention
from vlm_crash.models.folder import image_size
from vlm_crash.models.token_merging import merge_tokens
from vlm_crash.models.vision import image_features

SMALL = ["model", "--frames", "4", "8", "--groups", "1", "--rounds", "1", "--shapes", "tiny"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    parts = "".join(
        f"<!-- bench model {part} -->\nSTALE {part}\n<!-- end of bench model {part} -->\n" for part in PARTS
    )
    page.write_text(f"# Page\n{parts}after\n")
    return page


def test_a_small_run(tmp_path: Path, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new/model.json"
    assert main([*SMALL, "--json", str(file), "--markdown", str(page)]) == 0
    found = json.loads(file.read_text())
    assert found["ratios"]["merge_vs_port"] == pytest.approx(found["tables"][0]["rows"][0][3])
    assert found["machine"]["threads"] == torch.get_num_threads() and found["versions"]["torch"]
    prompts = next(table for table in found["tables"] if table["title"].startswith("A prompt"))
    assert [row[:3] for row in prompts["rows"]] == [[4, 64, 16], [8, 128, 32]]
    text = page.read_text()
    made = f"Made by `python tools/bench.py {shlex.join(SMALL)}` on "
    assert text.startswith(f"# Page\n<!-- bench model merging -->\n{made}"), "the command as it was given"
    assert text.endswith("<!-- end of bench model memory -->\nafter\n")
    assert "STALE" not in text and text.count("### Token merging") == 1
    assert len(re.findall(r"^### ", text, flags=re.M)) == len(found["tables"])
    assert "### Token merging" in capsys.readouterr().out


def test_a_part_of_it_leaves_the_others(page: Path) -> None:
    assert main([*SMALL, "--parts", "vision", "--markdown", str(page)]) == 0
    text = page.read_text()
    assert "STALE merging" in text and "STALE prefill" in text and "STALE vision" not in text
    assert "### Four frames through the tiny model's vision" in text and "### Token merging" not in text


def test_what_takes_too_long_is_left_out_and_said(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    assert main([*SMALL, "--parts", "prefill", "--limit_s", "0", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    rows = next(table["rows"] for table in found["tables"] if table["title"].startswith("A prompt"))
    assert rows[0][3] is not None and rows[1][3:6] == [None] * 3
    assert rows[1][6] > rows[0][6]
    assert any("prefill of the tiny model without merging, 8 frames" in note for note in found["notes"])


def test_a_page_without_a_place_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("# Page\n")
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, "--markdown", str(tmp_path / "page.md")])
    assert stopped.value.code == 2 and "<!-- bench model merging -->" in capsys.readouterr().err


def test_the_port_computes_the_same() -> None:
    x_GPC = torch.randn(3, 64, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain_port(x_GPC, 9, 4), merge_tokens(x_GPC, 9, 4))


def test_bytes_of_the_cache_are_those_of_a_real_one() -> None:
    config = shape_config("tiny", is_merged=True)
    with torch.no_grad():
        cache = prefill(random_model(config, num_vision_layers=0), torch.randn(1, 50, 192))
    real = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert cache_bytes(config, 50) == 2 * real


def test_the_1b_model_has_its_size() -> None:
    from vlm_crash.models.checkpoints import meta_model

    model = meta_model(shape_config("1B", is_merged=True))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.model.named_children()}
    assert 0.30e9 < sizes["vision_tower"] < 0.31e9 and 0.49e9 < sizes["language_model"] < 0.50e9
    assert model.config.vlm_crash["hico"] == {"local_num_frames": 4, "num_tome_tokens": 64, "merge_heads": 8}


def test_functions_take_turns_after_a_round_that_is_not_counted() -> None:
    calls: list[str] = []
    seconds, rounds = side_by_side([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3, limit_s=60)
    assert calls == ["a", "b"] * 4 and rounds == 3 and len(seconds) == 2
    assert side_by_side([lambda: None], rounds=3, limit_s=0)[1] == 1


def test_the_peak_is_of_what_is_there_at_once() -> None:
    def one_after_the_other() -> None:
        for size in (100, 300, 200):
            torch.zeros(size, dtype=torch.uint8)
        held = torch.zeros(150, dtype=torch.uint8)
        held[20:].add_(1)  # neither a view nor what is done in place needs more

    assert 300 <= measured_peak(one_after_the_other) < 364  # the allocator may round up


@pytest.mark.parametrize("is_merged", [False, True])
def test_what_is_counted_is_what_the_allocator_gives(is_merged: bool) -> None:
    config = shape_config("tiny", is_merged)
    set_attention("auto")  # whatever ran before in this process
    with torch.no_grad():
        model = random_model(config)
        embeds = torch.randn(1, 200, model.lm_head.in_features)
        assert prefill_peak(config, 200) == pytest.approx(measured_peak(lambda: prefill(model, embeds)), rel=0.02)
        pixels = torch.randn(8, 3, *image_size(config))
        peaks = []
        for chunk in (1, 4, None):
            run = measured_peak(lambda chunk=chunk: image_features(model, pixels, [8], chunk))  # type: ignore[misc]
            peaks.append(vision_peak(config, 8, chunk))
            assert peaks[-1] == pytest.approx(run, rel=0.02)
    assert 2 * peaks[0] < peaks[1] < 0.7 * peaks[2]  # a smaller chunk needs less


def test_with_a_chunk_more_frames_need_little_more() -> None:
    """Without one, memory grows with the clip; with one, by the visual tokens alone."""
    config = shape_config("tiny", is_merged=True)
    bounded = vision_peak(config, 64, 4) - vision_peak(config, 16, 4)
    assert bounded < (vision_peak(config, 64, None) - vision_peak(config, 16, None)) / 20
