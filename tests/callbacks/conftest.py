"""The model of the parallel tests, for callbacks that look at training steps."""

from tests.parallel.conftest import micro_model  # noqa: F401
