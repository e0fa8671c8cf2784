"""Clips read in a process that may die: it hangs, crashes and is killed here, and the next clip is read."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tests.video.conftest import write_clip
from vlm_crash.video import guarded, reader
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import ReaderProcess, UnreadableClipError, probe, read_frames
from vlm_crash.video.image_transform import resized

PATIENCE_S = 300  # only what hangs takes longer
ODD = "tests.video.odd_reader"
ROOT = Path(__file__).resolve().parents[2]
HANGS_DECORD = ROOT.parent / "shared/clips/torture/dashcam.ts"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def odd() -> Iterator[ReaderProcess]:
    process = ReaderProcess(ODD)
    yield process
    process.stop()


def ask(process: ReaderProcess, path: Path, timeout_s: float | None = PATIENCE_S) -> reader.Frames:
    return process.ask("read_frames", path, [FrameSampling(4).to_json(), "auto"], timeout_s)


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    patient_until = time.monotonic() + PATIENCE_S
    while lives(pid) and time.monotonic() < patient_until:
        time.sleep(0.02)
    return not lives(pid)


def wait_for(path: Path) -> None:
    """What odd_reader makes where it hangs."""
    patient_until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < patient_until
        time.sleep(0.02)


def test_gives_what_the_reader_gives(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    path = Path(clip.name)
    here, there = reader.read_frames(path, FrameSampling(8, "card")), read_frames(path, FrameSampling(8, "card"))
    np.testing.assert_array_equal(there.frames_FHWC, here.frames_FHWC)
    assert (there.indices, there.times_s, there.info, there.reader) == (
        here.indices, here.times_s, here.info, here.reader,
    )  # fmt: skip
    assert there.frames_FHWC.flags.writeable
    assert probe(path) == reader.probe(path)


def test_one_process_reads_clip_after_clip(clip):
    read_frames(clip, FrameSampling(4))
    pid = guarded._own_process().pid
    read_frames(clip, FrameSampling(256), timeout_s=None)
    read_frames(clip, FrameSampling(4), timeout_s=0)
    assert guarded._own_process().pid == pid
    with pytest.raises(ValueError, match="num_frames=0"):
        read_frames(clip, FrameSampling(0))


@pytest.mark.parametrize(
    ("name", "timeout_s", "reason"),
    [
        ("hangs", 0.5, "the decoder took longer than 0.5 s and was killed"),
        ("crashes", None, "the decoder died by SIGSEGV"),
        ("aborts", PATIENCE_S, "the decoder died by SIGABRT"),
        ("killed", PATIENCE_S, "the decoder was killed by SIGKILL, as the system does where memory is full"),
        (
            "grows",
            PATIENCE_S,
            "the decoder failed: numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 PiB",
        ),
        ("vanishes", PATIENCE_S, "no such file or directory"),
    ],
)
def test_one_clip_is_lost(odd, clip, tmp_path, name, timeout_s, reason):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(clip.read_bytes())
    first = ask(odd, clip).frames_FHWC
    pid = odd.pid
    with pytest.raises(UnreadableClipError) as caught:
        ask(odd, path, timeout_s)
    assert caught.value.path == path
    assert caught.value.reason.startswith(reason)
    np.testing.assert_array_equal(ask(odd, clip).frames_FHWC, first)
    if name != "vanishes":
        assert not lives(pid) and odd.pid != pid


@pytest.mark.skipif(not HANGS_DECORD.is_file(), reason="../shared/clips is absent: no clip that hangs decord")
def test_a_clip_that_hangs_decord(odd, clip):
    ask(odd, clip)
    with pytest.raises(UnreadableClipError, match="longer than 2 s and was killed"):
        ask(odd, HANGS_DECORD, 2)
    assert ask(odd, clip).frames_FHWC.shape == (4, 48, 64, 3)


def test_a_process_that_dies_between_two_clips_costs_none(odd, clip):
    ask(odd, clip)
    os.kill(odd.pid, signal.SIGKILL)
    assert ends(odd.pid)
    assert ask(odd, clip).reader == "pyav"


def test_signals_to_all_are_the_owners(odd, clip):
    ask(odd, clip)
    pid = odd.pid
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    ask(odd, clip)
    assert odd.pid == pid


def test_ctrl_c_while_a_clip_is_read(odd, clip, tmp_path):
    path = tmp_path / "hangs.mp4"
    path.write_bytes(clip.read_bytes())
    ask(odd, clip)
    pid = odd.pid
    main = threading.get_ident()

    def press() -> None:
        wait_for(tmp_path / "pipe")
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        ask(odd, path)
    assert not lives(pid)
    assert ask(odd, clip).reader == "pyav"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["hangs", "clip"])
def test_the_process_ends_with_its_owner(clip, tmp_path, name, number):
    """While it reads, and while it waits for the next clip."""
    (tmp_path / f"{name}.mp4").write_bytes(clip.read_bytes())
    code = (
        "import sys, time; from pathlib import Path; from vlm_crash.video.guarded import ReaderProcess\n"
        f"process = ReaderProcess({ODD!r}); process._ready(); print(process.pid, flush=True)\n"
        "process.ask('read_frames', Path(sys.argv[1]), [{}, 'auto'], None); print('read', flush=True)\n"
        "time.sleep(900)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / f"{name}.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        if name == "clip":
            assert owner.stdout.readline() == "read\n"
        else:
            wait_for(tmp_path / "pipe")
        assert lives(pid)
        owner.send_signal(number)
        owner.wait(PATIENCE_S)
        assert ends(pid)


class Clips(Dataset):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        frames = read_frames(self.path, FrameSampling(4))
        pid = guarded._own_process().pid
        assert pid is not None
        return os.getpid(), pid, int(frames.frames_FHWC.sum())


def test_in_workers_that_may_have_no_children(clip):
    """A process for each; the one of their parent, which they were forked with, stays as it is."""
    whole = int(read_frames(clip, FrameSampling(4)).frames_FHWC.sum())
    own = guarded._own_process().pid
    found = list(DataLoader(Clips(clip), num_workers=2, batch_size=None))
    assert len({worker for worker, _, _ in found}) == len({pid for _, pid, _ in found}) == 2
    assert own not in {pid for _, pid, _ in found}
    assert {total for _, _, total in found} == {whole}
    assert all(ends(pid) for _, pid, _ in found)
    read_frames(clip, FrameSampling(4))
    assert guarded._own_process().pid == own


def test_threads_do_not_share_one(clip):
    found = []

    def work() -> None:
        for _ in range(5):
            found.append((guarded._own_process().pid, int(read_frames(clip, FrameSampling(4)).frames_FHWC.sum())))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10 and len({total for _, total in found}) == 1
    assert len({pid for pid, _ in found if pid is not None}) == 2


def test_what_the_reader_logs_is_logged_here(tmp_path, caplog):
    path = write_clip(tmp_path / "cut.mp4", movflags="faststart", g="1", crf="0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with caplog.at_level("DEBUG", "vlm_crash.video"):
        read_frames(path, FrameSampling(4))
    said = {(record.levelname, record.name) for record in caplog.records}
    assert said == {(level, "vlm_crash.video.reader") for level in ("WARNING", "INFO", "DEBUG")}
    assert "frames can be decoded" in caplog.text
    caplog.clear()
    with caplog.at_level("ERROR", "vlm_crash.video"):
        read_frames(path, FrameSampling(4))
    assert not caplog.records


def test_a_process_that_does_not_start_is_no_clips_fault(clip):
    with pytest.raises(RuntimeError, match=r"does not start: .*No module named tests\.video\.nothing"):
        ask(ReaderProcess("tests.video.nothing"), clip)


def test_frames_are_resized_as_they_come(tmp_path):
    """More than lie in the memory at once, some twice; the clips in between are larger and smaller."""
    small, large = write_clip(tmp_path / "small.mp4", num_frames=5), tmp_path / "large.mp4"
    with av.open(str(large), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 256, (240, 320, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    for path in (small, large, small):
        for reader_name in ("auto", "decord"):
            whole = reader.read_frames(path, FrameSampling(9), reader_name)
            frames = read_frames(path, FrameSampling(9), reader_name, image_size=56)
            np.testing.assert_array_equal(frames.frames_FHWC, resized(whole.frames_FHWC, 56))
            assert (frames.indices, frames.times_s) == (whole.indices, whole.times_s)
            np.testing.assert_array_equal(
                read_frames(path, FrameSampling(9), reader_name).frames_FHWC, whole.frames_FHWC
            )


def test_a_clip_that_is_read_twice_gives_the_second(tmp_path):
    """Its damage is found behind frames that were handed over."""
    path = write_clip(tmp_path / "cut.mp4", movflags="faststart", g="1", crf="0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10] + bytes(len(content) - len(content) * 6 // 10))
    whole = reader.read_frames(path, FrameSampling(16))
    assert whole.num_damaged > 0
    frames = read_frames(path, FrameSampling(16))
    np.testing.assert_array_equal(frames.frames_FHWC, whole.frames_FHWC)
    assert frames.num_damaged == whole.num_damaged
