"""Ctrl-C that comes where Python drops it: it comes again, and a process that was just forked passes over it."""

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from vlm_crash.cli.interrupt import ctrl_c_arrives


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """In the background of a shell SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Finalized:
    """Ctrl-C while its finalizer runs."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_in_a_finalizer():
    going_on = []
    with pytest.raises(KeyboardInterrupt), ctrl_c_arrives():
        Finalized()
        going_on.append("as it is dropped there")
        time.sleep(300)
    assert going_on


def test_beside_a_fork():
    """The new process goes on, as a worker of a DataLoader does that is sent it together with its parent."""
    with pytest.raises(KeyboardInterrupt), ctrl_c_arrives():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.raise_signal(signal.SIGINT)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_errors_of_finalizers_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Wrong:
        def __del__(self) -> None:
            raise ValueError("wrong")

    with ctrl_c_arrives():
        Wrong()
    assert [what.exc_type for what in told] == [ValueError]
    assert sys.unraisablehook == told.append


def test_who_handles_it_goes_on_doing_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ctrl_c_arrives():
        signal.raise_signal(signal.SIGINT)
