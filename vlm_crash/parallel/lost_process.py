"""An error of the network between processes becomes one message.

Enters: an exception. Leaves: which wait it was, how long, and what to do; None where it is another error.
"""

import os
import re
import traceback
from collections.abc import Iterator

import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException

#: function on the stack -> what was being done; of several, the first here says it.
WAITS = {
    "check_shared_folder": "while the folder of the run was looked for on all machines",
    "_save_last_checkpoint": "while a checkpoint was written",
    "save_checkpoint": "while a checkpoint was written",
    "gather_dict": "while weights were gathered",
    "load_checkpoint": "while a checkpoint was read",
    "foreach_reduce": "for the others' gradients",
    "foreach_all_gather": "for the others' parts of the weights",
    "_unscale_grads_": "for the others' word on an overflow",
    "reduce_boolean_decision": "for the others' word on whether to stop",
    "barrier": "for the others to come to the same place",
}
START = ("init_process_group", "new_group", "make_mesh")
# How gloo and NCCL put it (gloo/transport/tcp/pair.cc and unbound_buffer.cc, ProcessGroupNCCL.cpp).
_SILENT = re.compile(r"Timed out waiting (\d+)ms|ran for (\d+) milliseconds before timing out|timed out after (\d+)ms")
_CLOSED = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|Socket closed|pair closure")
_NETWORK = re.compile(r"gloo/transport/|Gloo connectFullMesh failed|ProcessGroup|NCCL|c10d|TCPStore")
_PEER = re.compile(r"\[((?:\d+\.){3}\d+|[0-9a-f:]+:[0-9a-f:]*)\]:\d+")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop(0)
        if link in seen:
            continue
        seen.append(link)
        yield link
        waiting += [other for other in (link.__cause__, link.__context__) if other is not None]
        if isinstance(link, CheckpointException):
            waiting += [fault for fault, _ in link.failures.values()]


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and bool(
        _NETWORK.search(text) and (_SILENT.search(text) or _CLOSED.search(text) or "connect" in text)
    )


def lost_process(error: BaseException) -> str | None:
    """What to tell of an error that came as another process was gone, out of reach or too slow; None for others."""
    links = list(_chain(error))
    lost = next((link for link in links if _is_lost(link)), None)
    if lost is None:
        return None
    functions = {frame.name for link in links for frame in traceback.extract_tb(link.__traceback__)}
    text = " ".join(str(lost).split())
    peer = _PEER.search(text)
    who = f" ({peer[1]})" if peer else ""
    if functions & set(START):
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        return (
            f"the processes did not come together at {where}{who}: {text[:200]}; see that each was "
            "started with the same address, a port that is free there and a rank of its own, that no firewall stands "
            "between them, and that GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, where set, name the network between them"
        )
    what = next((words for name, words in WAITS.items() if name in functions), "for the others' numbers")
    silent, closed = _SILENT.search(text), _CLOSED.search(text)
    if silent:
        waited = f"waited {next(int(found) for found in silent.groups() if found) / 1000:g} s {what}, in vain"
    elif closed:
        waited = f"it closed the connection; this one waited {what}"
    else:
        waited = f"this one waited {what}: {text[:200]}"
    return (
        f"another process is lost{who}: {waited}; its own log, on its machine, says why, if it was not killed or cut "
        "off. One that is only slow gets more time by --trainer.strategy.init_args.timeout (checkpoint_timeout)"
    )
