"""vlm_crash: dashcam clips in, filled-in crash and near-miss records out.

Importing the package loads nothing heavy; torch, lightning and transformers load where they are used.
"""

__version__ = "0.1.0"
