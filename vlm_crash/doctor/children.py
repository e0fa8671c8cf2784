"""Tries in a process of their own: what crashes or hangs there is a line here."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

from vlm_crash.doctor.lines import PROBLEM, Line

PATIENCE_S = 60.0


def tried(what: str, *arguments: str, patience_s: float = PATIENCE_S) -> Iterator[dict[str, Any]]:
    """What `python -m vlm_crash.doctor.tries WHAT` finds, as it finds it.

    Each item has the keys of a Line, or is a fact ({"fact": name, ...}). A child that dies or says nothing for so long
    yields a last one, a problem that names what was tried last.
    """
    command = [sys.executable, "-m", "vlm_crash.doctor.tries", what, *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "SLURM_LOCALID")}
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, errors="replace", env=environment
        ) as child:
            said: Queue[str | None] = Queue()
            threading.Thread(target=_read, args=(child, said), daemon=True).start()
            trying, end = what, ""
            while True:
                try:
                    line = said.get(timeout=patience_s)
                except Empty:
                    child.kill()
                    end = f"no answer within {patience_s:g} s while trying {trying}"
                    break
                if line is None:
                    break
                item = json.loads(line)
                if "trying" in item:
                    trying = item["trying"]
                else:
                    yield item
            code = child.wait()
        if code and not end:
            complaints.seek(0)
            last = [text.strip() for text in complaints if text.strip()][-1:] or [""]
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            end = f"the process that tried {trying} was {how}{f' ({last[0][:200]})' if last[0] else ''}"
    if end:
        yield Line(
            trying, PROBLEM, end, "see what the line says; `python -X faulthandler` with it shows more"
        ).as_dict()


def _read(child: "subprocess.Popen[str]", said: "Queue[str | None]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        # Libraries may write there, too.
        if line.startswith("{"):
            said.put(line)
    said.put(None)
