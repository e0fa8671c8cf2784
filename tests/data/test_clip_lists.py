"""Lists of clips: every form, its bad rows by number, a long one in little memory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vlm_crash.data.clip_sources import each_once, loose_clips
from vlm_crash.data.clip_store import ClipStore, clip_key, keys_of, loose_sample
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample

SCHEMA = load_schema()


def read(*paths: Path, num_videos: int | None = None) -> ClipStore:
    return loose_clips({}, paths, num_videos, SCHEMA)


def found(store: ClipStore, folder: Path) -> list[tuple[str | None, str]]:
    return [(clip.event, str(clip.path.relative_to(folder))) for clip in store]


def test_every_form_says_the_same(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone.mp4\r\nsub/two, 2.mp4\r\n")
    (tmp_path / "a.csv").write_text('\ufeffid, Video ,note\n1,one.mp4,\n2,"sub/two, 2.mp4","a\nb"\n')
    (tmp_path / "a.jsonl").write_text('{"video": "one.mp4"}\n\n{"file": "sub/two, 2.mp4", "event": null}\n')
    for name in ("a.txt", "a.csv", "a.jsonl"):
        assert found(read(tmp_path / name), tmp_path) == [(None, "one.mp4"), (None, "sub/two, 2.mp4")], name


def test_paths_are_relative_to_the_list(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text(f"one.mp4\n./x//two.mp4\n../three.mp4\n{tmp_path}/four.mp4\n")
    monkeypatch.chdir(tmp_path)
    paths = [str(clip.path) for clip in read(Path("lists/a.txt"))]
    inside = tmp_path / "lists"
    # ".." stays: where it leads to depends on links.
    assert paths == [f"{inside}/one.mp4", f"{inside}/x/two.mp4", f"{inside}/../three.mp4", f"{tmp_path}/four.mp4"]


def test_events_and_which_column_counts(tmp_path):
    """A path before a name; what the source says before what a model answered."""
    (tmp_path / "a.csv").write_text(
        "video,path,event,source_event\n1.mp4,a/1.mp4,nearmiss,crash\n2.mp4,a/2.mp4,crash,\n3.mp4,a/3.mp4,crash,NaN\n"
    )
    assert found(read(tmp_path / "a.csv"), tmp_path) == [("crash", "a/1.mp4"), (None, "a/2.mp4"), (None, "a/3.mp4")]


def test_num_videos_counts_each_event_of_a_list(tmp_path):
    rows = [(n, ("crash", "nearmiss", "")[n % 3]) for n in range(9)]
    (tmp_path / "a.csv").write_text("path,event\n" + "".join(f"{n}.mp4,{event}\n" for n, event in rows))
    assert len(read(tmp_path / "a.csv", num_videos=0)) == 9
    taken = read(tmp_path / "a.csv", num_videos=2)
    assert [clip.video for clip in taken] == [f"{n}.mp4" for n in range(6)]
    assert [clip.event for clip in taken.one_of_each] == [None, "crash", "nearmiss"]
    with pytest.raises(ValueError, match="num_videos=-1 is negative"):
        read(tmp_path / "a.csv", num_videos=-1)


def test_a_repeated_clip_is_named_and_done_once(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("path,event\nx.mp4,\ny.mp4,\nx.mp4,crash\n./x.mp4,\n")
    store = read(tmp_path / "a.csv", tmp_path / "a.csv")
    assert found(store, tmp_path) == [(None, "x.mp4"), (None, "y.mp4"), ("crash", "x.mp4")]
    assert "5 clips are given more than once and done once" in caplog.text
    assert f"again in {tmp_path}/a.csv, row 4 ({tmp_path}/x.mp4)" in caplog.text
    assert keys_of(list(store)).tolist() == store.keys.tolist()
    assert store.keys[2] == clip_key("crash", f"{tmp_path}/x.mp4")


def test_a_split_that_names_a_clip_twice(tmp_path, caplog):
    """Of the same event: one line would be lost when lines are merged. Of another event it is another question."""
    clips = [
        loose_sample(tmp_path / name, event) for name, event in (("a", "crash"), ("b", "crash"), ("a", "nearmiss"))
    ]
    again = replace(clips[0], id="crash_7")
    assert each_once([*clips, again]) == clips
    assert f"1 clips are given more than once and done once: again in crash_7 ({tmp_path / 'a'})" in caplog.text
    caplog.clear()
    assert each_once(clips) == clips and not caplog.text


def test_bad_rows_are_named_by_number(tmp_path):
    bad = {
        "a.csv": "path,event\nok.mp4,crash\n,crash\nx.mp4\ny.mp4,flood\n",
        "a.txt": "ok.mp4\n\0.mp4\n",
        "a.jsonl": '{"video": "ok.mp4"}\nnonsense\n["x.mp4"]\n{"event": "crash"}\n',
    }
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "a.csv")
    assert str(caught.value).splitlines() == [
        "3 rows of the list cannot be used:",
        f"  {tmp_path}/a.csv, row 2: it names no clip; give a path, or take the row out",
        f"  {tmp_path}/a.csv, row 3: 1 cells where the header has 2; put quotes around cells that hold a comma",
        f"  {tmp_path}/a.csv, row 4: event 'flood' is not in the schema; give one of crash, nearmiss, or nothing",
    ]
    (tmp_path / "c.csv").write_text('path,note,event\n1.mp4,x,crash\n2.mp4,"y,crash\n3.mp4,z",crash\n4.mp4,"a\nb",\n')
    with pytest.raises(
        ValueError, match=r"1 rows(.|\n)*row 2: a cell of it holds 1 line that looks like a row: a quote"
    ):
        read(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="row 2: its path holds NUL"):
        read(tmp_path / "a.txt")
    what = r"row 2: it is not JSON(.|\n)*row 3: it is no object(.|\n)*row 4: it has no path"
    with pytest.raises(ValueError, match=what):
        read(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_text("\0\n" * 100)
    with pytest.raises(ValueError, match=r"100 rows of the list(.|\n)*and 80 more"):
        read(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "has no rows"),
        ("a.csv", b"path\n", "has no rows"),
        ("a.csv", b"", "none of its columns holds the clips .it has no header"),
        ("a.csv", b"a;path\n1;x.mp4\n", "none of its columns holds the clips .it has 'a;path'"),
        ("a.txt", "x.mp4\n".encode("utf-16"), "it is UTF-16; save the list as UTF-8"),
    ],
)
def test_files_that_are_no_lists(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.txt", "x.mp4\n\n  \ny.mp4\n", "2, 3"),
        ("a.csv", 'path,note\nx.mp4,"a\nb"\n\n\ny.mp4,\n', "4, 5"),
        ("a.jsonl", '{"path": "x.mp4"}\n \n\n{"path": "y.mp4"}\n', "2, 3"),
    ],
)
def test_blank_lines_are_named(tmp_path, caplog, name, content, where):
    (tmp_path / name).write_text(content)
    assert [clip.video for clip in read(tmp_path / name)] == ["x.mp4", "y.mp4"]
    assert f"{name}: 2 blank lines left out ({where})" in caplog.text


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff.mp4\n")
    (clip,) = read(tmp_path / "a.txt")
    assert os.fsencode(clip.path).endswith(b"/\xff.mp4") and clip.video == r"\xff.mp4"


def test_clips_at_hand_and_lists_together(demo_clips, tmp_path):
    (tmp_path / "a.txt").write_text("gone.mp4\n")
    folders = {"crash": demo_clips / "crash"}
    store = loose_clips(folders, [tmp_path / "a.txt", demo_clips / "nearmiss"], 2, SCHEMA)
    assert [(c.event, c.video) for c in store] == [
        ("crash", "1.mp4"), ("crash", "2.mp4"), (None, "gone.mp4"), (None, "1.mp4"),
    ]  # fmt: skip
    path = demo_clips / "crash" / "1.mp4"
    assert store[0] == VideoSample(f"crash:{path}", "1.mp4", path, "crash", annotation=None, duration_s=None)
    assert [clip.video for clip in store[1:3]] == ["2.mp4", "gone.mp4"] and store[-1].video == "1.mp4"


@pytest.mark.parametrize(("suffix", "rows", "most_mib"), [(".csv", 50_000, 20), (".txt", 400_000, 80)])
def test_a_long_list_takes_little_memory(tmp_path, suffix, rows, most_mib):
    """130 bytes a clip while repeated ones are looked for, as the store says; as objects they would take 750."""
    path = tmp_path / f"long{suffix}"
    with path.open("w") as file:
        if suffix == ".csv":
            file.write("n,video,event\n")
            file.writelines(f"{n},d{n % 365}/c_{n:09d}.mp4,{'crash' if n % 2 else ''}\n" for n in range(rows))
        else:
            file.writelines(f"d{n % 365}/c_{n:09d}.mp4\n" for n in range(rows))
    code = (
        "import re, sys, json\n"
        "from pathlib import Path\n"
        "from vlm_crash.data.clip_sources import loose_clips\n"
        "from vlm_crash.schema.fields import load_schema\n"
        # Not ru_maxrss, which a process takes over from the one that started it.
        "kib = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "schema, before = load_schema(), kib()\n"
        "store = loose_clips({}, [Path(sys.argv[1])], None, schema)\n"
        "print(json.dumps([len(store), store[len(store) - 1].video, (kib() - before) / 1024]))\n"
    )
    said = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    number, last, grown = json.loads(said)
    assert (number, last) == (rows, f"c_{rows - 1:09d}.mp4")
    assert 30 * rows / 2**20 < grown < most_mib, f"{grown:.0f} MiB"
