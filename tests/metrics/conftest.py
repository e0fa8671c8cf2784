"""A schema of two events with one field of each kind, and helpers that make answers and truths of it."""

import pytest

from vlm_crash.schema.fields import Event, Field, Schema

WEATHER = Field("Weather", ("Weather",), "Weather", (), "Scene", "categorical", ("Clear", "Rainy", "Foggy"), True)
LANES = Field("Lanes", ("Lanes",), "Number of lanes", (), "Scene", "count")
REASON = Field("Reason", ("Reason",), "Reason", (), "Story", "text")


@pytest.fixture
def schema() -> Schema:
    crash = Event("crash", "Crash", "Crash scenario.", ("crash scenario",), (WEATHER, LANES, REASON))
    nearmiss = Event("nearmiss", "Near miss", "Near-miss scenario.", ("near-miss scenario",), (WEATHER, REASON))
    return Schema((crash, nearmiss), "tests")
