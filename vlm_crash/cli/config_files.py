"""YAMLs of options: found by name, and looked at before the parser reads them.

Enters: the arguments of a command. Leaves: the same with paths in place of names, or one ValueError with the file, the
place in it and the remedy (the parser's own complaints do not name the file).
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from vlm_crash.schema.wording import closest
from vlm_crash.schema.yaml_form import read_text, where_it_breaks

#: Options whose value is a YAML.
_CONFIGS = ("--config", "-c")
#: Those of Lightning's commands whose value may be one, too, or stand in brackets on the command line itself.
SECTIONS = ("--model", "--data", "--trainer")
_REMEDY = "write options there as `--print_config` prints them, or leave it out"


def find_config(name: str) -> Path:
    """A config by path, else by name in ./configs, else among those that ship with the package.

    Raises:
        ValueError: there is none of that name; the nearest is named.
    """
    shipped = Path(str(files("vlm_crash") / "_configs"))
    folders = [Path("configs"), shipped, Path(__file__).parents[2] / "configs"]
    for place in (Path(name), *(folder / name for folder in folders)):
        if place.is_file():
            return place
    if Path(name).is_dir():
        raise ValueError(f"config {name} is a folder; give a YAML file in it, or leave --config out")
    known = sorted({path.name for folder in folders for path in folder.glob("*.yaml")})
    meant = closest(Path(name).name, known)
    raise ValueError(
        f"there is no config {name}: not in the working folder, not in configs/; "
        + (f"did you mean {meant}? " if meant else "")
        + f"shipped configs: {', '.join(known) or 'none'}"
    )


def resolve_configs(args: Sequence[str], sections: Sequence[str] = ()) -> list[str]:
    """Replace the name after --config (or -c) by the path it stands for; look at every config.

    Args:
        args: of a command.
        sections: options of it that take a YAML, too.

    Raises:
        ValueError: a config is not there, or is no YAML of options.
    """
    resolved: list[str] = []
    for arg in args:
        option, has_value, value = arg.partition("=")
        if resolved and resolved[-1] in _CONFIGS:
            resolved.append(str(_checked(find_config(arg))))
        elif option == "--config" and has_value:
            resolved.append(f"--config={_checked(find_config(value))}")
        else:
            if option in sections and has_value:
                _check_section(option, value)
            elif resolved and resolved[-1] in sections:
                _check_section(resolved[-1], arg)
            resolved.append(arg)
    return resolved


def _check_section(option: str, value: str) -> None:
    if not value.startswith(("{", "null")):
        if not Path(value).is_file():
            raise ValueError(f"there is no config {value}; give {option} a YAML file, or its options as {option}.NAME")
        _checked(Path(value))


def _checked(path: Path) -> Path:
    """The path, if it leads to a YAML that maps options to values, each once."""
    text = read_text(path, "config")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"config {path}, {where_it_breaks(error, text)}; {_REMEDY}") from error
    if root is None:
        raise ValueError(f"config {path} is empty; {_REMEDY}")
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a text"
        raise ValueError(f"config {path}, line {line}: {kind}, not options (`name: value`); {_REMEDY}")
    _check_given_once(root, path)
    return path


def _check_given_once(root: yaml.Node, path: Path) -> None:
    """The parser would take the last of equal keys."""
    nodes, seen = [root], {id(root)}  # an alias leads to a node again, or to one that it is in
    while nodes:
        node = nodes.pop()
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line, name = key.start_mark.line + 1, str(key.value)
            if name in lines and name != "<<":
                raise ValueError(
                    f"config {path}, line {line}: {name!r} is given twice, first in line {lines[name]}; leave one"
                )
            lines[name] = line
        inner = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
        found = [item for item in inner if isinstance(item, yaml.Node) and id(item) not in seen]
        seen |= {id(item) for item in found}
        nodes += found
