"""The embedded default: dashcam scenes with known truth, drawn and written as clips."""
