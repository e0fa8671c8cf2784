"""Which process of a test this is; imported by processes alone."""

import os

WORLD = int(os.environ["WORLD_SIZE"])
RANK = int(os.environ["RANK"])
