"""Which process of a test this is; in a process that is none of a run, the only one."""

import os

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
