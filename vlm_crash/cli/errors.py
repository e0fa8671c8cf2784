"""Failures -> one message and an exit code.

What a user did (bad options, files, folders, a full disk) ends with 2 and one message; what we did ends with 3 and
the traceback, and a run that has lost one of its processes with 3 and one message; Ctrl-C ends with 130, SIGTERM
with 143.
"""

import errno
import importlib
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from vlm_crash.cli.interrupt import ctrl_c_arrives

#: Commands that write all of their files at the end, or none.
WRITE_AT_THE_END = ("prepare", "evaluate", "compare", "report")
PACKAGE = Path(__file__).resolve().parents[1]
DONE, USER_ERROR, OUR_ERROR, INTERRUPTED, TERMINATED = 0, 2, 3, 130, 143


def run_guarded(command: str, args: Sequence[str], module: str) -> int:
    """Run a command of a module of this package (`run(command, args) -> int`) and turn failures into exit codes."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "huggingface_hub", "sentence_transformers", "fsspec", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with ctrl_c_arrives():
            return importlib.import_module(f"vlm_crash.cli.{module}").run(command, list(args))
    except KeyboardInterrupt:
        return _interrupted(command)
    except SystemExit as stop:
        # Lightning ends an interrupted run with exit(1), jsonargparse --help with exit(0).
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted(command)
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, after the checkpoint
            print(f"vlm_crash {command}: ended by SIGTERM; what was finished is kept", file=sys.stderr)
            return TERMINATED
        return stop.code if isinstance(stop.code, int) else USER_ERROR if stop.code else DONE
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001 - the last line of defence: every other failure becomes an exit code here
        lost = _lost_process(error)
        if lost is not None:
            print(f"vlm_crash {command}: error: {lost}{_resume(command, args)}", file=sys.stderr)
            return OUR_ERROR
        message = user_message(error)
        if message is None:
            traceback.print_exc()
            print(
                f"vlm_crash {command}: an error of ours; please report it with the lines above",
                file=sys.stderr,
            )
            return OUR_ERROR
        print(f"vlm_crash {command}: error: {message}", file=sys.stderr)
        return USER_ERROR


def _interrupted(command: str) -> int:
    kept = "nothing was written" if command in WRITE_AT_THE_END else "what was finished is kept"
    print(f"vlm_crash {command}: interrupted; {kept}", file=sys.stderr)
    return INTERRUPTED


def _lost_process(error: BaseException) -> str | None:
    if "torch.distributed" not in sys.modules:
        return None
    from vlm_crash.parallel.lost_process import lost_process

    return lost_process(error)


def _resume(command: str, args: Sequence[str]) -> str:
    if command != "fit":
        return ""
    given = " ".join(args)
    goes_on = re.search(r"--ckpt_path[= ](?:last|auto)\b", given)
    rest = [] if goes_on else ["--ckpt_path", "auto"]
    return f". To go on from the last checkpoint, start all processes again: fit {shlex.join([*args, *rest])}"


def user_message(error: BaseException) -> str | None:
    """The one message for what a user did; None for an error of ours.

    A ValueError or a missing file counts as the user's where our own code raised it, on purpose; an error that a
    library raised below us is ours, as we should have caught the input before. What the machine refuses (no space, no
    such file, no permission) is told as it is.
    """
    from jsonargparse import ArgumentError

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    for link in chain:
        if isinstance(link, OSError) and link.errno:
            return _of_file(link) if link.filename else _no_file(link)
        if isinstance(link, ValueError | OSError) and _raised_by_us(link):
            return str(link)
    if isinstance(error, ArgumentError):
        return str(error)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for settings that cannot be
        return " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of GPU memory ({str(error).splitlines()[0]}); lower --data.num_frames or --data.batch_size, set "
            "--model.vision_chunk 8 or --model.activation_checkpointing true"
        )
    if re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", str(error), flags=re.S):
        return (
            "a process that reads clips was ended from outside, as memory or /dev/shm was full; "
            "lower --data.num_workers or --data.batch_size"
        )
    return _from_worker(str(error))


def _of_file(error: OSError) -> str:
    said = str(error.strerror)
    if isinstance(error, FileExistsError) and ";" not in said and Path(os.fsdecode(error.filename)).is_file():
        return f"{error.filename} is a file; give a folder"
    return f"{error.filename}: {said}{'' if ';' in said else '; check the path, and who may read and write there'}"


def _no_file(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{error.strerror}{'; free some space or write elsewhere' if full else ''}"


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).resolve().is_relative_to(PACKAGE)


def _from_worker(text: str) -> str | None:
    """The message of a failed DataLoader worker; None where it is no user's mistake.

    A worker's exception comes as text, with its traceback, as another type where it cannot be made again.
    """
    frames = list(re.finditer(r'^ *File "([^"]+)", line \d+, in .*$', text, flags=re.M))
    if "DataLoader worker" not in text or not frames or not Path(frames[-1][1]).resolve().is_relative_to(PACKAGE):
        return None
    found = re.search(
        r"^(?:vlm_crash\.[\w.]+|ValueError|FileNotFoundError): (.*)", text[frames[-1].end() :], re.M | re.S
    )
    return found[1].strip() if found else None
