"""Small YAML files that a flag names: suppressions, exceptions."""

from typing import TYPE_CHECKING, Any

from meshtls.errors import InputError

if TYPE_CHECKING:
    from meshtls.model.marks import Marks


def text(path: str) -> str:
    """The file's text. Raises InputError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(10_000_000)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', '') or error}") from error


def parsed(text: str, file: str, hint: str) -> "tuple[Any, Marks]":
    """The YAML in a text: plain data, and the line of each of its fields. Raises InputError, which ends with `hint`."""
    import yaml

    from meshtls.cluster.nesting import shallow
    from meshtls.model.marks import read

    shallow(text, file)
    try:
        return read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"broken YAML: {error.problem or error.context}", hint, file=file, line=mark.line + 1 if mark else 0) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"broken YAML: {' '.join(str(error).split())[:200]}", hint, file=file) from error
