"""Fewer bits: refused where they cannot be, and on a GPU with bitsandbytes close to fp16."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vlm_crash.analyzer import CrashAnalyzer
from vlm_crash.cli import main
from vlm_crash.models.optimization import parameter_counts
from vlm_crash.models.quantized import KINDS, check_load_in, check_stage, settings_of

BASE = Path(__file__).parents[2] / "vlm_crash/demo/base"


def test_what_cannot_be():
    check_load_in(None, has_adapters=True)
    with pytest.raises(ValueError, match=r"load_in='2bit' is not one of \['8bit', '4bit', 'int8'\]"):
        check_load_in("2bit")
    with pytest.raises(ValueError, match="is for whole models"):
        check_load_in("8bit", has_adapters=True)
    with pytest.raises(ValueError, match="is for predict alone"):
        check_stage("8bit", "fit", torch.device("cuda"))
    with pytest.raises(ValueError, match="needs a GPU, and this run is on cpu"):
        check_stage("8bit", "predict", torch.device("cpu"))
    with pytest.raises(ValueError, match="is for CPUs, and this run is on cuda"):
        check_stage("int8", "predict", torch.device("cuda"))
    with pytest.raises(ValueError, match="leave dtype out"):
        CrashAnalyzer.from_pretrained(BASE, device="cpu", load_in="int8", dtype="bfloat16")
    check_stage(None, "fit", torch.device("cpu"))
    check_load_in("int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cpu_is_told(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    with pytest.raises(ValueError, match=f"load_in='{kind}' needs a CUDA device, and there is none here"):
        CrashAnalyzer.from_pretrained(BASE, load_in=kind)
    args = ["predict", "--model.path", str(BASE), "--data.clips", str(tmp_path), "--output_dir", str(tmp_path / "p")]
    assert main([*args, "--model.load_in", kind]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    assert main(["fit", *args[1:3], "--data.folder", str(tmp_path), "--model.load_in", kind]) == 2
    assert "fit does nothing with --model.load_in (acts in predict)" in capsys.readouterr().err


def test_int8_on_a_cpu_answers_almost_the_same(demo_clips, tmp_path, caplog):
    """Both towers' linear layers; also from the command line, with the same answers and another run id."""
    caplog.set_level("INFO")
    options = {"device": "cpu", "max_new_tokens": 16}
    clips = [demo_clips / f"{event}/{number}.mp4" for event in ("crash", "nearmiss") for number in (1, 2)]
    of_fp32 = CrashAnalyzer.from_pretrained(BASE, **options)
    whole = of_fp32(clips, batch_size=4)
    few = CrashAnalyzer.from_pretrained(BASE, load_in="int8", **options)
    towers = few.module.model.model
    for tower in (towers.vision_tower, towers.language_model):
        layers = list(tower.modules())
        assert any(isinstance(layer, torch.ao.nn.quantized.dynamic.Linear) for layer in layers)
        assert not [layer for layer in layers if type(layer) is nn.Linear]
    assert type(few.module.model.lm_head) is nn.Linear
    answers = few(clips, batch_size=4)
    fields = [
        (name, value, bits) for fp32, bits in zip(whole, answers, strict=True) for name, value in fp32.fields.items()
    ]
    same = sum(bits.fields.get(name) == value for name, value, bits in fields)
    assert 0.9 * len(fields) <= same and len(fields) >= 4 * 9
    assert [bits.event_probability for bits in answers] != [fp32.event_probability for fp32 in whole]
    assert [bits.event for bits in answers] == [fp32.event for fp32 in whole]
    out = tmp_path / "p"
    args = [
        "predict",
        "--model.path",
        str(BASE),
        "--data.crash_dir",
        str(demo_clips / "crash"),
        "--data.num_videos",
        "1",
    ]
    args += ["--model.load_in", "int8", "--model.max_new_tokens", "16", "--trainer.accelerator", "cpu"]
    assert main([*args, "--data.num_workers", "0", "--output_dir", str(out)]) == 0
    line = json.loads((out / "predictions.jsonl").read_text())
    alone = few(clips[0]).to_json_dict()
    assert all(line[key] == alone[key] for key in ("response", "event_probability", "field_probabilities"))
    # int8 matrices are no parameters of their layers; they count all the same.
    counts = parameter_counts(of_fp32.module.model)
    assert parameter_counts(few.module.model) == counts and f"parameters: {counts}" in caplog.text
    assert json.loads((out / "run.json").read_text())["model"]["load_in"] == "int8"


def test_the_settings_are_turings():
    assert settings_of("8bit").load_in_8bit and not settings_of("8bit").load_in_4bit
    four = settings_of("4bit")
    assert four.load_in_4bit and four.bnb_4bit_quant_type == "nf4" and four.bnb_4bit_use_double_quant
    assert four.bnb_4bit_compute_dtype == torch.float16


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_answers_are_close_to_those_of_fp16(kind, layout, parity, demo_clips):
    """Of the base the same event and most fields; of a tiny folder in the original layout an answer at all."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = BASE if layout == "transformers" else parity / "checkpoints/qwen2_qknorm"
    options = {"device": "cuda", "max_new_tokens": 16, "num_frames": 4}
    whole, few = CrashAnalyzer.from_pretrained(folder, **options), None
    few = CrashAnalyzer.from_pretrained(folder, load_in=kind, **options)
    layers = {type(layer) for layer in few.module.model.model.language_model.modules() if isinstance(layer, nn.Linear)}
    assert layers == {bitsandbytes.nn.Linear8bitLt if kind == "8bit" else bitsandbytes.nn.Linear4bit}
    assert type(few.module.model.lm_head) is nn.Linear
    width = next(p for n, p in few.module.model.named_parameters() if n.endswith("layers.0.mlp.up_proj.weight"))
    assert width.dtype == (torch.int8 if kind == "8bit" else torch.uint8)
    clips = [demo_clips / "crash/1.mp4", demo_clips / "nearmiss/1.mp4"]
    answers = list(zip(whole(clips), few(clips, batch_size=2), strict=True))
    assert all(record.status == "ok" for pair in answers for record in pair)
    if layout == "transformers":
        for fp16, bits in answers:
            assert bits.event == fp16.event
            assert bits.event_probability == pytest.approx(fp16.event_probability, abs=0.1)
            same = sum(bits.fields.get(name) == value for name, value in fp16.fields.items())
            assert same >= 0.5 * len(fp16.fields)
