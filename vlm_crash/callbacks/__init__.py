"""What happens beside the steps: predictions onto disk, numbers and samples into the logger, the model folder."""

from vlm_crash.callbacks.model_folder import ModelFolder, WholeCheckpoints
from vlm_crash.callbacks.monitoring import TrainingMonitor, ValidationSample
from vlm_crash.callbacks.overflow_sentinel import OverflowSentinel
from vlm_crash.callbacks.predictions import PredictionWriter

__all__ = [
    "ModelFolder",
    "OverflowSentinel",
    "PredictionWriter",
    "TrainingMonitor",
    "ValidationSample",
    "WholeCheckpoints",
]
