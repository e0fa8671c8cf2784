"""What works on this machine: looked at and tried, one line each.

Enters: a training config or none. Leaves: lines (ok, warning, problem, not tried), each with its remedy. Invariant:
whatever is broken becomes a line; what could end a process is tried in another one.
"""

from vlm_crash.doctor.examination import examine, exit_code
from vlm_crash.doctor.lines import Line
from vlm_crash.doctor.needs import Needs, read_needs

__all__ = ["Line", "Needs", "examine", "exit_code", "read_needs"]
