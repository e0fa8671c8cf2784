"""Schemas that several tests read."""

from pathlib import Path

import pytest

from vlm_crash.schema import Schema, load_schema

HERE = Path(__file__).parent
MOVEMENTS = ["Backing", "Changing_lanes", "Making_left_turn", "Making_right_turn", "Proceeding_straight", "Stopped"]
VOCABULARIES = {
    "Ego_pre_avoid_movement": MOVEMENTS,
    "Other_pre_avoid_movement": MOVEMENTS,
    "Crash_with": ["Motorcycle", "Passenger_vehicle", "Pedestrian", "Truck"],
    "Crash_vehicle_type": ["SUV", "Sedan", "Truck", "Van"],
    "Other_most_damaged_area": ["Front_center_bumper", "Left_side", "Rear_center_bumper"],
}


@pytest.fixture(scope="session")
def shipped() -> Schema:
    return load_schema()


@pytest.fixture(scope="session")
def filled(shipped: Schema) -> Schema:
    """The shipped schema with the vocabularies of a dataset."""
    return shipped.with_vocabularies(VOCABULARIES)


@pytest.fixture(scope="session")
def mine() -> Schema:
    return load_schema(HERE / "mine.yaml")
