"""A process that reads clips for another one lives as long as that one wants it.

Enters: signals, sent to a whole group of processes by Slurm or by a shell. Leaves: the end of a worker where its parent
asked for it, and nothing else: without its workers, the process that trains could not end its step and save.
"""

import os
import signal
import threading

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGUSR1})


def heed_parent_alone(worker_id: int) -> None:
    """For a DataLoader's `worker_init_fn`: no Ctrl-C; SIGTERM and SIGUSR1 from the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent tells its workers to end
    # A handler is not told who has sent a signal, and ignoring SIGTERM would keep the parent waiting at its exit.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=_wait_for_parent, name="signals", daemon=True).start()


def _wait_for_parent() -> None:
    while True:
        received = signal.sigwaitinfo(STOP_SIGNALS)
        if received.si_signo == signal.SIGTERM and received.si_pid == os.getppid():
            os._exit(0)
