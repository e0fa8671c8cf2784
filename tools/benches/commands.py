"""The package's commands, for tools that go through several of them.

Enters: words of a command line. Leaves: what the command leaves; SystemExit where it fails.
"""

import time

from vlm_crash.cli import main


def command(*words: object) -> None:
    """A command of ours in this process, as a user would type it; how long it took is printed."""
    print("$ python -m vlm_crash", *words, flush=True)
    start = time.perf_counter()
    code = main([str(word) for word in words])
    if code:
        raise SystemExit(f"{words[0]} ended with {code}")
    print(f"  {words[0]}: {time.perf_counter() - start:.0f} s", flush=True)
