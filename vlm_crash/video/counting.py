"""A number with its noun, as messages say it.

In: a count and what is counted. Out: English. Must hold: one is singular.
"""


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "clip"), counted(2000, "pair")
    ('1 clip', '2,000 pairs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
