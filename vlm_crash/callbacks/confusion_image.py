"""A confusion matrix as a picture.

Enters: counts of truths (rows) by answers (columns). Leaves: pixels. Invariant: every count that is not 0 is printed.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL, MARGIN, SIZE = 34, 8, 13
#: Right answers and wrong ones, at a share of 1 of their row.
RIGHT, WRONG = (34, 130, 76), (196, 72, 48)


def draw(title: str, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """RGB picture, uint8 [height, width, 3]; a cell is as dark as its share of its row.

    Args:
        title: a line above; the number of clips is put behind it.
        counts: integers [rows, columns]; row i is right in column i where both have the same word.
        rows: words of the truths.
        columns: words of the answers.
    """
    font = ImageFont.load_default(SIZE)
    left = 2 * MARGIN + max(int(font.getlength(word)) for word in ["truth", *rows])
    top = 4 * MARGIN + SIZE + max(int(font.getlength(word)) for word in ["answer", *columns])
    title = f"{title}: {counts.sum()} clips, truth by answer"
    width = max(left + CELL * len(columns), int(font.getlength(title))) + 2 * MARGIN
    picture = Image.new("RGB", (width, top + CELL * len(rows) + MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), title, "black", font)
    for column, word in enumerate(columns):
        picture.paste(*_upright(word, font, (left + column * CELL, top)))
    for row, word in enumerate(rows):
        y = top + row * CELL
        pen.text((left - MARGIN, y + CELL // 2), word, "black", font, anchor="rm")
        total = counts[row].sum()
        for column, count in enumerate(counts[row]):
            share = count / total if total else 0.0
            colour = RIGHT if columns[column] == word else WRONG
            fill = tuple(round(255 - share * (255 - channel)) for channel in colour)
            x = left + column * CELL
            pen.rectangle((x, y, x + CELL, y + CELL), fill, "lightgrey")
            if count:
                ink = "white" if share > 0.5 else "black"
                pen.text((x + CELL // 2, y + CELL // 2), str(count), ink, font, anchor="mm")
    return np.asarray(picture)


def _upright(word: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, foot: tuple[int, int]) -> tuple:
    """A word to be read from below, and where it goes above a column that begins at `foot`."""
    label = Image.new("RGB", (int(font.getlength(word)) + 2, SIZE + 4), "white")
    ImageDraw.Draw(label).text((0, 0), word, "black", font)
    label = label.rotate(90, expand=True)
    return label, (foot[0] + (CELL - label.width) // 2, foot[1] - label.height - 4)
