"""What an audit says of clips that it could compare in part or not at all, and which fingerprints it keeps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlm_crash.data.audit_copies import PRINTS_FILE, Looked, look, unseen_findings
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.fingerprint import NUM_WORDS, Fingerprint


def print_of(num_frames: int, num_blank: int = 0, is_whole: bool = True) -> Fingerprint:
    words = np.random.default_rng(0).integers(0, 2**64, (2, num_frames, NUM_WORDS), dtype=np.uint64)
    return Fingerprint(tuple(n / 4 for n in range(num_frames)), words[0], words[1], num_blank, is_whole)


def sample(n: int, folder: Path = Path("clips")) -> VideoSample:
    return VideoSample(f"crash_{n}", f"{n}.mp4", folder / f"{n}.mp4", "crash", None, None)


def test_what_was_not_compared_is_said_once_each():
    looked = [
        Looked("a", print_of(8)),
        Looked(None, None, "no clip"),
        Looked("b", print_of(1, num_blank=39)),
        Looked("c", print_of(40, is_whole=False)),
        Looked("d", print_of(0, num_blank=40), "no frame of it has a structure"),
    ]
    found = list(unseen_findings([sample(n) for n in range(5)], looked))
    assert [(f.severity, [clip["id"] for clip in f.details["clips"]]) for f in found] == [
        ("warning", ["crash_1", "crash_4"]),
        ("note", ["crash_2"]),
        ("note", ["crash_3"]),
    ]
    assert "1 clip without enough structure to compare" in found[1].sentence
    assert "crash/2.mp4 (1 of 40 frames has a structure)" in found[1].sentence
    assert (
        "1 clip over 10 minutes: copies are looked for in the first 10 minutes only: crash/3.mp4" in found[2].sentence
    )


def test_fingerprints_of_other_frames_are_taken_anew(tmp_path, monkeypatch):
    (tmp_path / "0.mp4").write_bytes(b"a clip")
    taken = []
    one = print_of(4, num_blank=2, is_whole=False)
    monkeypatch.setattr("vlm_crash.data.audit_copies.fingerprint", lambda path, _: taken.append(path) or one)
    clips = [sample(0, tmp_path)]
    for _ in range(2):
        (seen,) = look(clips, 1, 60, tmp_path)
        assert seen.print is not None
        assert replace(seen.print, hashes_FW=one.hashes_FW, mirrored_FW=one.mirrored_FW) == one
        assert (seen.print.hashes_FW == one.hashes_FW).all() and (seen.print.mirrored_FW == one.mirrored_FW).all()
    assert len(taken) == 1
    line = json.loads((tmp_path / PRINTS_FILE).read_text())
    line["sampling"]["num_frames"] = 128  # spread over the clip, as they once were
    (tmp_path / PRINTS_FILE).write_text(json.dumps(line) + "\n")
    look(clips, 1, 60, tmp_path)
    assert len(taken) == 2
