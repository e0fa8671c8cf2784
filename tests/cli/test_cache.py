"""--data.cache from the command line: the same weights, a full disk that ends nothing, what it does not act on."""

from pathlib import Path

from tests.cli.conftest import PATIENCE_S, QUICK, QUICK_FIT, begin


def run(say, tiny_model: Path, prepared: Path, out: Path, *options: object) -> bytes:
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out, *options]
    code, message = say("fit", *QUICK, *QUICK_FIT, "--trainer.enable_checkpointing", "false", *args)
    assert code == 0, message
    return (out / "model" / "model.safetensors").read_bytes()


def test_the_same_weights_with_and_without(say, tiny_model, prepared, tmp_path):
    cache = ["--data.cache.folder", tmp_path / "cache"]
    plain, first, second = (
        run(say, tiny_model, prepared, tmp_path / name, *options)
        for name, options in (("plain", []), ("first", cache), ("second", [*cache, "--data.cache.max_gib", 1]))
    )
    assert plain == first == second
    assert len(list((tmp_path / "cache" / "frames").rglob("*/*"))) > 0


def test_a_disk_that_fills_up_ends_no_run(tiny_model, prepared, tmp_path):
    """A real limit: files may grow to so many KiB, the rest the system refuses; one of raw frames is larger."""
    args = ["validate", *QUICK, "--model.num_validation_answers", "0", "--trainer.logger", "false"]
    args += ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out"]
    args += ["--data.num_frames", "24", "--data.cache.folder", tmp_path / "cache", "--data.cache.format", "raw"]
    process = begin(*args, file_limit_kib=1000)
    error = process.communicate(PATIENCE_S)[0]
    assert process.returncode == 0, error
    assert "Traceback" not in error
    assert error.count("cannot be written (File too large), so nothing more is kept there") == 1
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_settings_that_cannot_be(wrong, tiny_model, prepared, tmp_path):
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out"]
    cache = ["--data.cache.folder", tmp_path / "cache"]
    message = wrong("fit", *args, *cache, "--data.cache.format", "png")
    assert message.startswith("format='png' is not one of ['raw', 'lz4', 'zstd', 'webp', 'jpeg']")
    assert "no room: 14 clips x 8 frames" in wrong("fit", *QUICK[:4], *args, *cache, "--data.cache.max_gib", "1e-6")
    assert "--scan" in wrong("predict", *args, *cache, "--scan", "true")


def test_the_need_goes_before_the_run(wrong, tiny_model, prepared, tmp_path):
    """Nothing of the output is there yet when it is refused."""
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out"]
    wrong("fit", *QUICK, *args, "--data.cache.folder", tmp_path / "cache", "--data.cache.max_gib", "1e-6")
    assert not (tmp_path / "out" / "checkpoints").exists()
