"""Confusion matrices as pictures."""

import numpy as np
import torch

from vlm_crash.callbacks.confusion_image import CELL, MARGIN, draw
from vlm_crash.callbacks.validation_pictures import matrix_picture


def cells(picture, rows, columns):
    """Colour of each cell near its corner, from the right lower end of the picture's grid."""
    bottom = picture.shape[0] - MARGIN
    grey = np.all(picture[bottom - CELL // 2] == (211, 211, 211), axis=1).nonzero()[0]
    left = grey[0]
    return [
        [tuple(int(c) for c in picture[bottom - (rows - r) * CELL + 4, left + k * CELL + 4]) for k in range(columns)]
        for r in range(rows)
    ]


def test_right_answers_are_green_and_wrong_ones_red():
    picture = draw("Weather", np.array([[3, 1], [0, 4]]), ["Sunny", "Rain"], ["Sunny", "Rain"])
    (sunny, sunny_as_rain), (rain_as_sunny, rain) = cells(picture, 2, 2)
    assert rain == (34, 130, 76), "all of a row"
    assert rain_as_sunny == (255, 255, 255)
    assert sunny[1] > sunny[0] > rain[0], "a share of 3/4 is paler"
    assert sunny_as_rain[0] > sunny_as_rain[1] > 196


def test_counts_are_printed():
    empty, full = (draw("x", np.array([[n]]), ["a"], ["b"]) for n in (0, 8))
    inside = (slice(-MARGIN - CELL + 2, -MARGIN - 2),)
    assert len(np.unique(empty[inside].reshape(-1, 3), axis=0)) < len(np.unique(full[inside].reshape(-1, 3), axis=0))


def test_rows_without_truths_are_left_out():
    terms = ("A", "B", "C")
    counts = torch.zeros(4, 5, dtype=torch.long)
    counts[0, 0], counts[0, 2], counts[0, 4] = 1, 2, 3
    picture = matrix_picture("Field", counts, terms)
    wanted = draw("Field", np.array([[1, 2, 3]]), ["A"], ["A", "C", "no answer"])
    assert np.array_equal(picture, wanted)
