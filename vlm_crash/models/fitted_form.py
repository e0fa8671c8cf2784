"""The form that a model was fitted with against the form that its answers are read with.

Enters: both. Leaves: nothing, or what is wrong with that.
"""

import logging
from pathlib import Path

from vlm_crash.schema.fields import SHIPPED, Schema

log = logging.getLogger(__name__)


def check_form(fitted: str | None, schema: Schema, given: Path | str | None, path: Path | str) -> None:
    """The form that answers are read with must be the one that they are written in.

    Args:
        fitted: the form of the model; None: not said.
        schema: what answers are read with.
        given: its YAML; None: nobody has asked for one.
        path: of the model.

    Raises:
        ValueError: they differ, and nobody has said that they shall.
    """
    if fitted in (None, schema.form):
        return
    if given is None:
        raise ValueError(
            f"{path} was fitted with another form than the shipped one; give --data.schema, the YAML that it was "
            f"fitted with (or, to read its answers with the shipped one all the same, {SHIPPED})"
        )
    log.warning(
        "%s was fitted with another form, or another version of it, than %s; fields that differ will be missing",
        path, given,
    )  # fmt: skip
