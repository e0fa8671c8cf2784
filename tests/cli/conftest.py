"""Commands in this process, with what they say; small options for the tiny model."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import DISTURBANCE, FILE_LIMIT
from tests.parallel.conftest import free_port
from tests.parallel.forked import Forked
from vlm_crash.cli import main

ROOT = Path(__file__).parents[2]
#: Options that make a run on the tiny model as short as can be.
QUICK = [
    "--model.embedder", "null", "--model.max_new_tokens", "12", "--data.num_frames", "2", "--data.num_workers", "0",
    "--trainer.accelerator", "cpu",
]  # fmt: skip
QUICK_FIT = [
    "--model.num_validation_answers", "0", "--data.batch_size", "2", "--trainer.max_steps", "2",
    "--trainer.num_sanity_val_steps", "0", "--trainer.log_every_n_steps", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def old_signal_handlers() -> Iterator[None]:
    """Lightning ignores Ctrl-C after an interrupted run."""
    old = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run a command: its exit code, and the one message on stderr (log lines left out); a traceback is a failure."""
    monkeypatch.setattr(sys, "argv", ["vlm_crash"])

    def run(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        error = capsys.readouterr().err
        assert "Traceback" not in error, error
        return code, error[error.find("vlm_crash") :].strip() if code else error

    return run


@pytest.fixture
def wrong(say: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """Run a command that must end with exit code 2, and give its message: one, headed by the command."""

    def run(*args: object) -> str:
        code, message = say(*args)
        assert code == 2, message
        assert message.count("error:") == 1, message
        return message.split("error: ", 1)[1]

    return run


#: Seconds that a process may take: only what hangs takes longer, on a slow machine that others use, too.
PATIENCE_S = 900


def begin(
    *args: object, file_limit_kib: int | None = None, signal_after: tuple[str, int, signal.Signals] | None = None
) -> Forked:
    """A command in a process of its own, forked from one that has imported the libraries.

    Args:
        file_limit_kib: most that a file may grow to.
        signal_after: a function ("package.module.Class.name"), how many calls of it return before the signal comes,
            and which one; Ctrl-C comes to its workers, too.
    """
    environment = {"MASTER_PORT": str(free_port())}  # Lightning would choose one that may be taken before it is used
    if file_limit_kib is not None:
        environment[FILE_LIMIT] = str(file_limit_kib)
    if signal_after is not None:
        after, count, number = signal_after
        disturbance = {"after": after, "count": count, "signal": number.value, "group": number == signal.SIGINT}
        environment[DISTURBANCE] = json.dumps(disturbance)
    return Forked("tests.cli.command", environment, [str(arg) for arg in args], ends_as_python=True)


def start(*args: object, **options: object) -> subprocess.Popen[str]:
    """A command in a process as a shell starts it, stderr in a pipe: where how it begins and ends is what is tested."""
    command = [sys.executable, "-m", "vlm_crash", *map(str, args)]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command, cwd=ROOT, text=True, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_hear_ctrl_c, **options
    )


def _hear_ctrl_c() -> None:
    """Where the tests run in the background of a shell, SIGINT is ignored, and a child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
