"""`python -m vlm_crash`."""

import sys

from vlm_crash.cli import main

if __name__ == "__main__":
    sys.exit(main())
