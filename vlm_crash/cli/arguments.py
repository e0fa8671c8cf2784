"""Parsers: unknown keys are answered with the nearest known one, values with what would fit."""

import argparse
import re
from collections.abc import Iterable, Sequence

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from vlm_crash.schema.wording import closest

# What jsonargparse says of a key that it does not know, of one that is lacking, and of a value that does not fit.
_UNKNOWN = (
    re.compile(r"[Uu]nrecognized arguments: (?P<key>\S+)"),
    re.compile(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'"),
    re.compile(r"Subcommand '\w+' does not accept option '(?P<key>[\w.]+)'"),
    re.compile(r"Option '(?P<key>[\w.]+)' is not accepted"),
    re.compile(r"Key ['\"](?P<key>[\w.]+)['\"] is not expected"),
)
_REQUIRED = re.compile(r"the following arguments are required: (?P<keys>.+)")
_NO_VALUE = re.compile(r"argument (?:-\w/)?--(?P<key>[\w.]+): expected (?:one|at least one) argument")
_LACKING = re.compile(
    r"Parser key ['\"](?P<key>[\w.]+)['\"]: .*Problem with given class_path .*?"
    r"the following arguments are required: (?P<names>\w+(?:, \w+)*)"
)
# One of a group of options that belong together.
_NESTED = re.compile(r"NestedArg\(key='(?P<key>[\w.]+)', val='?(?P<value>.*?)'?\)$")
_TYPE = re.compile(r"Parser key ['\"](?P<key>[\w.]+)['\"]: (?P<what>.+)")


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's, with types as a reader knows them: Path, not <class 'Path'>."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        text = super()._get_type_str(action)
        return text and re.sub(r"<class '([\w.]+)'>", r"\1", text)


def known_keys(parser: ArgumentParser) -> list[str]:
    """Every option of a parser (and of its subcommands), without dashes."""
    keys: set[str] = set()
    for action in parser._actions:
        keys |= {option.lstrip("-") for option in action.option_strings if option.startswith("--")}
        for child in getattr(action, "_name_parser_map", {}).values():
            keys |= set(known_keys(child))
    return sorted(keys)


def explain(error: ArgumentError, keys: Iterable[str], command: str) -> ValueError:
    """One message for a parser's complaint: the key, the nearest known one, what would fit."""
    keys = list(keys)
    text = " ".join(str(error).split())
    for pattern in _UNKNOWN:
        match = pattern.search(text)
        if match:
            found = match.groupdict()
            given = found["key"].split("=")[0]
            key = given.lstrip("-").removeprefix(f"{command}.")
            if found.get("group") and not key.startswith(found["group"]):
                key = f"{found['group']}.{key}"
            if pattern is _UNKNOWN[0] and not given.startswith("-"):
                return ValueError(f"{given!r} is not expected here; options begin with --, as --{keys[0]}")
            if pattern is _UNKNOWN[0] and not given.startswith("--") and key in keys:
                return ValueError(f"there is no option {given!r}; options begin with two dashes: --{key}")
            unknown = given.lstrip("-") if key in keys else key  # `frames --frames.start_s`
            return ValueError(f"there is no option {unknown!r}; {_nearest_key(key, keys)}")
    lacking = _LACKING.search(text)
    if lacking:  # of a group of options that belong together
        (key,) = _names(lacking["key"], command)
        needed = " and ".join(f"--{key}.{name}" for name in _names(lacking["names"], command))
        return ValueError(f"--{key} needs {needed}; give it, too, or leave all of --{key} out")
    required = _REQUIRED.search(text)
    if required:
        names = [f"--{name}" if name in keys else name for name in _names(required["keys"], command)]
        they = "it is" if len(names) == 1 else "they are"
        return ValueError(f"{' and '.join(names)} must be given; `{command} --help` says what {they}")
    empty = _NO_VALUE.search(text)
    if empty:
        key = empty["key"]
        return ValueError(
            f"--{key} is given without a value; write it behind, as in --{key} true for a switch; `{command} --help` "
            "says what fits"
        )
    wrong = _TYPE.search(text)
    if wrong:
        (key,) = _names(wrong["key"], command)
        nested = _NESTED.search(wrong["what"])
        if nested:
            return ValueError(f"--{key}.{nested['key']} cannot be {nested['value']}; `{command} --help` says what fits")
        what = _readable(wrong["what"])
        parted = re.fullmatch(r"expected str, got \{'0+': '?(\w+)'?\}", what)  # --event_of.1.0
        if parted:
            return ValueError(
                f"--{key}: a dot parts names, and is no part of one; write a name such as 1.0 without its .0, as in "
                f"--{key}.1 {parted[1]}"
            )
        return ValueError(f"--{key} cannot be that: {what}; `{command} --help` says what fits")
    return ValueError(text)


def _names(keys: str, command: str) -> list[str]:
    return [key.strip().removeprefix(f"{command}.") for key in keys.split(",")]


def _nearest_key(key: str, keys: Sequence[str]) -> str:
    same_end = [known for known in keys if known.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    meant = same_end[0] if same_end else closest(key, keys)
    return f"did you mean {meant}?" if meant else "--help lists the options"


def _readable(what: str) -> str:
    """The parser's words about a type, without Python's.

    >>> _readable("Expected a <class 'int'>. Got value: abc")
    'expected int, got abc'
    >>> _readable(
    ...     "Does not validate against any of the Union subtypes Subtypes: [<class 'int'>, <class 'NoneType'>] "
    ...     "Errors: - Expected a <class 'int'> - Expected a ... Given value type: <class 'str'> Given value: abc"
    ... )
    'expected int or null, got abc'
    >>> _readable("Expected a <class 'float'>. Got value: inf")
    'expected a finite number, got inf'
    """
    plain = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", what).replace("NoneType", "null")
    plain = re.sub(r"(?:typing\.)?Literal\[([^\]]*)\]", r"\1", plain)
    union = re.search(r"Subtypes: \[(.+?)\] Errors: .*Given value: (.*)", plain)
    if union:
        kinds = [_kind(kind, union[2]) for kind in re.split(r", (?![^\[]*\])", union[1])]
        return f"expected {' or '.join(kinds)}, got {union[2]}"
    single = re.search(r"Expected an? (.+?)\. Got value: (.*)", plain)
    return f"expected {_kind(single[1], single[2])}, got {single[2]}" if single else plain


def _kind(name: str, given: str) -> str:
    """A type by name; float is said otherwise to those who gave a word that Python takes for one."""
    return "a finite number" if name == "float" and given.lstrip("+-").lower() in ("inf", "infinity", "nan") else name


def own_words(text: str) -> str | None:
    """What a class of a config has said of its own settings, from jsonargparse's report of all that a value might be.

    >>> own_words("Does not validate against any of the Union subtypes\\nSubtypes: [..]\\nErrors:\\n  - Expected a "
    ...     "<class 'str'>\\n  - timeout=0 is no time; set it higher\\nGiven value type: ..")
    'timeout=0 is no time; set it higher'

    Returns:
        None: it is another error, or all that is said is which types there are.
    """
    report = re.fullmatch(r"Does not validate against any .*?\nErrors:\n(.*?)\nGiven value type: .*", text, re.DOTALL)
    found = re.split(r"^ *- ", report[1], flags=re.MULTILINE) if report else []
    said = [part for part in (" ".join(part.split()) for part in found) if part and not part.startswith("Expected a ")]
    return said[-1] if said else None
