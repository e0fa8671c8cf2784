"""frames: what the model sees of a clip, as pictures for a person."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def frames_parser(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("clips", type=Path, nargs="+", metavar="CLIP", help="The clip; of several, each gets a folder of its own.")
    add("--out", type=Path, required=True, help="Folder for the pictures, the contact sheet and frames.json.")
    add("--num_frames", type=int, default=32, help="Frames of the clip.")
    add(
        "--frame_rule",
        type=str,
        default="middle",
        help="Which frames: middle, card, fps, duration or event (docs/sampling.md).",
    )
    add("--fps", type=float | None, help="Frames a second of the rule fps; --num_frames is the most.")
    add("--min_frames", type=int | None, help="Fewest frames of the rule duration; --num_frames is the most.")
    add("--start_s", type=float | None, help="Only what is shown from here on, in seconds from the first frame.")
    add("--end_s", type=float | None, help="Only what is shown before that, in seconds from the first frame.")
    add("--image_size", type=int, default=448, help="Side of the square that the model sees, in pixels.")
    add("--reader", type=str, default="auto", help="What decodes the clip: auto, decord, pyav or torchcodec.")
    add(
        "--clip_timeout_s",
        type=float | None,
        default=120.0,  # guarded.CLIP_TIMEOUT_S, whose module loads the decoders
        help="Most seconds to read a clip (null or 0: no limit).",
    )


def frames(options: Namespace) -> int:
    from vlm_crash.video.contact_sheet import write_frames
    from vlm_crash.video.frame_sampling import FrameSampling
    from vlm_crash.video.guarded import UnreadableClipError, read_frames
    from vlm_crash.video.reader import check_reader

    rest = {name: getattr(options, name) for name in ("fps", "min_frames", "start_s", "end_s")}
    sampling = FrameSampling(num_frames=options.num_frames, rule=options.frame_rule, **rest)
    check_reader(options.reader)
    if options.image_size < 1:
        raise ValueError(f"image_size={options.image_size}: need at least 1 pixel; 448 is InternVL's")
    folders = _folders(options.clips, options.out)
    problems = []
    for clip, folder in zip(options.clips, folders, strict=True):
        try:
            found = read_frames(clip, sampling, options.reader, options.clip_timeout_s)
        except UnreadableClipError as error:
            problems.append(str(error))
            continue
        write_frames(found, folder, options.image_size)
        info = found.info
        print(f"{clip}: {info.num_frames} frames of {info.codec}, read by {found.reader}; open {folder / 'sheet.png'}")
    if problems:
        raise ValueError("\n".join(problems))
    return 0


def _folders(clips: list[Path], out: Path) -> list[Path]:
    """Where each clip's pictures go: `out`, or a folder in it by the clip's name."""
    if len(clips) == 1:
        return [out]
    folders = [out / clip.name for clip in clips]
    twice = sorted({str(folder.name) for folder in folders if folders.count(folder) > 1})
    if twice:
        raise ValueError(f"several clips are called {', '.join(twice)}; give them one at a time, each its own --out")
    return folders


COMMANDS = {"frames": (frames_parser, frames)}
