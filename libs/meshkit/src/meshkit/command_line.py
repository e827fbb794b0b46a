"""The command line of a process: `--help` lists its settings, which are environment variables."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections import ChainMap
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_settings import BaseSettings

WIDTH = 100
INDENT = " " * 6
TYPES = {
    "array": "names, separated by commas",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
LIMITS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
"""What JSON Schema calls the limits of a number: https://json-schema.org/draft/2020-12/json-schema-validation."""


class Row(NamedTuple):
    """One setting, described for people."""

    variable: str
    type: str
    default: str
    """Empty if the setting has no default, or an empty one."""
    meaning: str


def rows(settings: type[BaseSettings]) -> list[Row]:
    """The settings of a class in the order of its fields; their meaning is their description or their docstring.

    The docstrings are read only here: with `use_attribute_docstrings`, pydantic parses the sources at each start.
    """
    prefix = str(settings.model_config.get("env_prefix", ""))
    schemas, fields = settings.model_json_schema()["properties"], settings.model_fields
    bases = (base for base in settings.__mro__ if fields.keys() & inspect.get_annotations(base))
    meanings = ChainMap(*map(_docstrings, bases))
    return [
        Row(f"{prefix}{name}".upper(), _type(schemas[name]), _default(field.default), meaning)
        for name, field in fields.items()
        for meaning in [field.description or meanings.get(name, "")]
    ]


def help_text(program: str, settings: type[BaseSettings]) -> str:
    """What `--help` prints."""
    return "\n".join(
        [
            f"usage: python -m {program} [--help]",
            "",
            inspect.getdoc(settings) or "",
            *(line for row in rows(settings) for line in _described(row)),
        ]
    )


def read_arguments(program: str, settings: type[BaseSettings], arguments: Sequence[str]) -> None:
    """Returns if there are no arguments.

    `--help` prints the settings and ends the process with status 0; any other argument ends it with one line and
    status 2.
    """
    if not arguments:
        return
    if {"-h", "--help"} & set(arguments):
        print(help_text(program, settings))  # noqa: T201 - the user asked for it
        sys.exit(0)
    text = f"{program}: unknown argument {arguments[0]}; settings are environment variables, which --help lists"
    print(text, file=sys.stderr)  # noqa: T201 - the log is not configured yet
    sys.exit(2)


def _docstrings(base: type) -> dict[str, str]:
    """The texts below the fields that a class itself declares, by their names."""
    try:
        (declaration,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
    except (OSError, TypeError):  # made by a call, such as pydantic's create_model
        return {}
    texts = {}
    for statement, following in pairwise(cast("ast.ClassDef", declaration).body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = inspect.cleandoc(text)
    return texts


def _described(row: Row) -> list[str]:
    default = f"; default {row.default}" if row.default else ""
    meaning = textwrap.wrap(row.meaning, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)
    return ["", f"  {row.variable}  ({row.type}{default})", *meaning]


def _type(schema: Mapping[str, Any]) -> str:
    if values := schema.get("enum"):
        *most, last = values
        return f"{', '.join(most)} or {last}"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each["type"] != "null")
    limits = (f"{text} {schema[name]:.9g}" for name, text in LIMITS.items() if name in schema)
    return ", ".join([schema.get("format") or TYPES[schema["type"]], *limits])


def _default(value: object) -> str:
    if value in (None, (), PydanticUndefined):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, float) else str(value)
