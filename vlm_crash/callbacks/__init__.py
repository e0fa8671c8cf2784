"""What happens beside the steps: predictions onto disk, numbers and samples into the logger, the model folder."""

from vlm_crash.callbacks.left_out import LeftOutClips
from vlm_crash.callbacks.model_folder import ModelFolder, WholeCheckpoints
from vlm_crash.callbacks.monitoring import TrainingMonitor
from vlm_crash.callbacks.overflow_sentinel import OverflowSentinel
from vlm_crash.callbacks.predictions import PredictionWriter
from vlm_crash.callbacks.validation_pictures import ConfusionMatrices, ValidationSamples

__all__ = [
    "ConfusionMatrices",
    "LeftOutClips",
    "ModelFolder",
    "OverflowSentinel",
    "PredictionWriter",
    "TrainingMonitor",
    "ValidationSamples",
    "WholeCheckpoints",
]
