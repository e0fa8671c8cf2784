"""One run at a time writes into a folder.

Enters: a folder. Leaves: a lock on a file in it, which the system takes back when the process ends, however that comes
about. Must hold: of two that ask at once one gets it.
"""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

LOCK = ".predictions.lock"


class FolderLock:
    """Not taken yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Take it; the folder is there.

        Raises:
            ValueError: another run has it.
            OSError: its file cannot be made.
        """
        file = (self.folder / LOCK).open("wb")
        try:
            # Of this process alone: workers that outlive a killed run do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = Path(file.name)
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise BlockingIOError  # its holder has just removed it, and another run may hold the next one
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise ValueError(
                f"another run writes into {self.folder}; wait for its end, or set --output_dir to another folder"
            ) from error
        except OSError as error:  # a disk that has no locks
            log.warning("%s: no lock (%s); see that no other run writes there", self.folder, error.strerror)
        self._file = file

    def free(self) -> None:
        """Give it back, where it is taken."""
        if self._file is not None:
            Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
            self._file = None
