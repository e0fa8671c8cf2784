"""vlm_crash: dashcam clips in, filled-in crash and near-miss records out.

Importing the package loads nothing heavy; torch, lightning and transformers load where they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_crash.analyzer import CrashAnalyzer

__version__ = "0.1.0"
__all__ = ["CrashAnalyzer", "__version__"]


def __getattr__(name: str) -> Any:
    """CrashAnalyzer, as soon as it is asked for: torch comes with it."""
    if name == "CrashAnalyzer":
        from vlm_crash.analyzer import CrashAnalyzer

        return CrashAnalyzer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
