"""The form that a model was fitted with against the form that its answers are read with.

Enters: both. Leaves: nothing, or what is wrong with that.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import InternVLConfig

from vlm_crash.models.folder import folder_settings
from vlm_crash.schema.fields import SHIPPED, Schema

log = logging.getLogger(__name__)


def fitted_form(config: InternVLConfig, form: Mapping[str, Any] | None) -> tuple[str | None, dict[str, Any] | None]:
    """The form that a model was fitted with, and the terms of its open fields; None: not said.

    Args:
        config: of its folder.
        form: of adapters that it begins from, which goes before what the folder says.
    """
    settings = folder_settings(config).to_dict()
    schema, terms = ((form or {}).get(name) or settings[name] for name in ("schema", "terms"))
    return schema, terms


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
