"""Params: frozen, strictly validated settings, documented by the docstring below each field.

Text from the command line (`-s finetune.epochs=3`) and values from a YAML file are both applied by `override`, which
validates the whole model and suggests the nearest key for an unknown one.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from raypath.components.core.errors import ParamsError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]
Tokens = Annotated[int, Field(ge=1)]
AUTO = "auto"
"""Value of a setting that is chosen from the data."""
Auto = Literal["auto"]


class SourceMark:
    """Mark of a text field with the URI of files or a model; a fingerprint of its target is part of the step's key."""


Source = Annotated[str, SourceMark()]


class Params(BaseModel):
    """Settings of a component or workflow. Subclass it, and give every field a default and a docstring."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with `{"a.b": value}` applied; text is parsed as the field's type. Raises ParamsError."""
        tree = self.model_dump(mode="json")
        for key, value in changes.items():
            _assign(type(self), tree, key, value)
        try:
            return type(self).model_validate_json(_as_json(tree, changes))
        except ValidationError as error:
            raise ParamsError(_first_line(error), fix="see the allowed values with `raypath show`") from None

    def flat(self) -> dict[str, Any]:
        """Return plain values by dotted key, as they are logged and shown."""
        return dict(flatten(self.model_dump(mode="json")))

    @classmethod
    def source_fields(cls) -> list[str]:
        """Return the names of all fields of type `Source`, in order."""
        return [
            name for name, field in cls.model_fields.items() if any(isinstance(m, SourceMark) for m in _marks(field))
        ]

    def sources(self) -> list[str]:
        """Return the values of all fields of type `Source` that are set and not "auto", in field order."""
        return [value for name in self.source_fields() if (value := getattr(self, name)) and value != AUTO]


def describe_fields(kind: type[Params], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, type, description) of every setting, nested ones included."""
    for name, field in kind.model_fields.items():
        inner = _params_type(field.annotation)
        if inner is not None:
            yield from describe_fields(inner, f"{prefix}{name}.")
        else:
            text = " ".join((field.description or "").split())
            yield f"{prefix}{name}", _type_name(field.annotation), text


def known_keys(kind: type[Params]) -> list[str]:
    """Return every dotted key that `override` accepts."""
    return [key for key, _, _ in describe_fields(kind)]


def _marks(field: Any) -> list[Any]:
    inner = [m for arg in get_args(field.annotation) for m in getattr(arg, "__metadata__", ())]
    return [*field.metadata, *inner]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings as (dotted key, value), in order."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_json(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Return the tree as JSON. Raises ParamsError that names the change that JSON has no value for."""
    try:
        return json.dumps(tree)
    except TypeError:
        key, value = next((key, value) for key, value in changes.items() if not _is_json(value))
        kind = type(value).__name__
        raise ParamsError(
            f"setting {key} is a {kind}", fix="give text, a number, true, false, null or a list; quote dates"
        ) from None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _params_type(annotation: Any) -> type[Params] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Params) else None


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_type_name(a) for a in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is dict:
        return "dict"
    if annotation is type(None):
        return "none"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _assign(kind: type[Params], tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the leaf that `key` names, with text parsed as the leaf's type."""
    *groups, leaf = key.split(".")
    here: type[Params] = kind
    for depth, group in enumerate(groups):
        field = here.model_fields.get(group)
        inner = _params_type(field.annotation) if field else None
        if field and get_origin(_bare(field.annotation)) is dict:
            free = key.split(".")[depth + 1 :]
            # Keys of texts are names, such as those of columns, which may have dots themselves.
            is_flat = get_args(_bare(field.annotation))[1] is str
            _put(tree, [group, ".".join(free)] if is_flat else [group, *free], value)
            return
        if inner is None:
            raise _unknown(kind, key)
        here, tree = inner, tree[group]
    if leaf not in here.model_fields:
        raise _unknown(kind, key)
    field = here.model_fields[leaf]
    if _params_type(field.annotation):
        raise ParamsError(f"setting {key} is a group", fix=f"set one of its keys, such as {_first_key(kind, key)}")
    annotation = Annotated[field.annotation, field] if field.metadata else field.annotation
    tree[leaf] = _parse(key, value, annotation) if isinstance(value, str) else value


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set an entry of a mapping with free keys; text is parsed as JSON if it is valid JSON."""
    for group in keys[:-1]:
        tree = tree.setdefault(group, {})
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    tree[keys[-1]] = value


def _first_key(kind: type[Params], group: str) -> str:
    return next((k for k in known_keys(kind) if k.startswith(f"{group}.")), group)


def _unknown(kind: type[Params], key: str) -> ParamsError:
    keys = known_keys(kind)
    group, _, leaf = key.rpartition(".")
    siblings = [known for known in keys if group and known.rpartition(".")[0] == group]
    if siblings:
        # Leaves are compared alone: a long group would make any two of its settings look alike.
        near = [f"{group}.{found}" for found in difflib.get_close_matches(leaf, _leaves(siblings), n=1)]
    else:
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    # Otherwise look for the same leaf in another group.
    near = near or [known for known, last in zip(keys, _leaves(keys), strict=True) if last == leaf][:1]
    if near:
        return ParamsError(f"unknown setting {key}", fix=f"did you mean {near[0]}?")
    some = f"settings of {group}" if siblings else "known settings"
    listed = siblings or keys
    more = ", ..." if len(listed) > 20 else ""
    return ParamsError(f"unknown setting {key}", fix=f"{some}: {', '.join(listed[:20])}{more}")


def _leaves(keys: list[str]) -> list[str]:
    return [key.rpartition(".")[2] for key in keys]


def _parse(key: str, text: str, annotation: Any) -> Any:
    """Parse text from the command line as the JSON value of the field's type."""
    optional = type(None) in get_args(_bare(annotation))
    if optional and text.lower() in ("", "none", "null"):
        return None
    value: Any = text
    if text[:1] in "[{" and _bare(annotation) is not str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ParamsError(f"setting {key} got {text!r}, which is not JSON", fix="quote it as JSON") from None
    elif get_origin(_bare(annotation)) in (list, tuple):
        value = [part.strip() for part in text.split(",")]
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.dump_python(adapter.validate_python(value, strict=False), mode="json")
    except ValidationError as error:
        message = _plain(error.errors()[0]["msg"]) + _alternative(error)
        raise ParamsError(f"setting {key} got {text!r}: {message}", fix="see `raypath show WORKFLOW`") from None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    # Alternatives of a type, such as int and "auto", are parts of the location, and no name of a setting.
    where = ".".join(part for part in map(str, first["loc"]) if not part.startswith(("constrained-", "literal[")))
    message = _plain(first["msg"]) + _alternative(error)
    if isinstance(first["input"], dict):
        # All settings of a group, one of which may be a secret.
        return f"setting {where}: {message}" if where else message
    return f"setting {where} got {first['input']!r}: {message}" if where else message


def _alternative(error: ValidationError) -> str:
    """Return ", or auto" where the setting that the first error is about takes "auto" too."""
    loc = error.errors()[0]["loc"][:-1]
    return ", or auto" if any(each["loc"] == (*loc, f"literal['{AUTO}']") for each in error.errors()[1:]) else ""


def _plain(message: str) -> str:
    if message == "Field required":
        return "wanted more values, such as 1e-5,1e-3"
    return message.removeprefix("Value error, ").replace("Input should be", "wanted")
