"""Reading that trusts nothing: a JSON or YAML file, whoever wrote it, becomes a checked value or a sentence. No torch here.

Only regular files of bounded size are opened, nothing in them runs or explodes, and what they say is validated by a model.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from msd.errors import MsdError, RunError, warn

JSON_BYTES, YAML_BYTES = 64 * 2**20, 2**17
"""Largest files that are read. YAML, which people write, is read slowly."""
MAX_DEPTH = 64
MAX_INTEGER = 2**64
SCHEMA_KEY = "schema"
BROKEN = ".broken"
"""What is added to the name of a file that is set aside."""
_TOO_LARGE = "it holds an integer of more than 64 bits"

Model = TypeVar("Model")


class Stored(BaseModel):
    """Base of what a file says. Values must have the very type; missing and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Notes(BaseModel):
    """Like `Stored`, where more may be noted than is looked at."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class Broken(ValueError):
    """Why a file or a text cannot be used: the part of a sentence that stands in brackets."""


def _check_name(value: str) -> str:
    if value in ("", ".", "..") or not value.isprintable() or "/" in value or "\\" in value or len(value.encode()) > 255:
        raise ValueError("should be a plain name, without a path")
    return value


def _check_relative(value: str) -> str:
    for piece in value.split("/"):
        try:
            _check_name(piece)
        except ValueError as error:
            raise ValueError("should be a path below its own folder") from error
    return value


Name = Annotated[str, AfterValidator(_check_name)]
"""The name of a file or folder within a known one: never a path."""
RelativePath = Annotated[str, AfterValidator(_check_relative)]
"""A path with `/`, of names only; `inside` says where it leads."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Measured = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(lambda value: math.nan if value is None else value)]
"""A measured number, which may have been no number: null in a file, as JSON has none that are not finite."""


def inside(folder: Path, relative: str) -> Path | None:
    """The path `relative` below `folder`; None where links lead out of it."""
    path = folder / relative
    try:
        return path if path.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # a circle of links
        return None


@dataclass(frozen=True)
class Kind:
    """What a file is and what helps where it is none: the pieces of all sentences about it."""

    what: str
    """A noun: "a cohort's manifest"."""
    remedy: str
    """The next step where it is broken; it must work when followed."""
    error: type[MsdError] = RunError
    schema: int | None = None
    """The number that must stand in it, and is looked at before anything else."""
    made: str = "made"
    """The participle for how it came to be."""
    outdated: str = ""
    """The next step where an older msd made it (default: `remedy`)."""
    missing: str = ""
    """The next step where there is none (default: `remedy`)."""

    def unreadable(self, path: Path, why: str, how: str = "") -> MsdError:
        """The error for a file that is there and says nothing."""
        return self.error(f"{path} ({self.what}) cannot be read{how} ({why}); {self.remedy}.")


def read_model(path: Path, model: type[Model], kind: Kind, limit: int = JSON_BYTES) -> Model:
    """What the JSON file at `path` says. Raises the kind's error."""
    return validated(read_json(path, kind, limit), model, kind, source=str(path))


def read_object(path: Path, model: type[Any], kind: Kind) -> dict[str, Any]:
    """Like `read_model`, but the object as it stands in the file, for what is hashed or passed on."""
    value = read_json(path, kind)
    validated(value, model, kind, source=str(path))
    return value


def read_kept(path: Path, model: type[Model], what: str, default: Model) -> Model:
    """Like `read_model`, for mere bookkeeping: `default` where there is none, and where it is broken, which is set aside."""
    if not os.path.lexists(path):
        return default
    try:
        return read_model(path, model, Kind(what, remedy="remove it"))
    except MsdError as error:
        set_aside(path, error)
        return default


def read_json(path: Path, kind: Kind, limit: int = JSON_BYTES) -> Any:
    """A JSON value, of which nothing is known yet. Raises the kind's error."""
    text = read_text(path, kind, limit)
    try:
        return parse_json(text)
    except Broken as cause:
        raise kind.unreadable(path, str(cause)) from cause


def read_text(path: Path, kind: Kind, limit: int) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes. Raises the kind's error."""
    try:
        with open_regular(path) as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise Broken(f"it is larger than {limit:,} bytes")
        return content.decode("utf-8")
    except FileNotFoundError as cause:
        if path.is_symlink():
            raise kind.unreadable(path, "it is a link to nothing") from cause
        raise kind.error(f"{path} ({kind.what}) does not exist; {kind.missing or kind.remedy}.") from cause
    except (OSError, ValueError) as cause:
        raise kind.unreadable(path, reason(cause)) from cause


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, never waiting for one that is none. Raises OSError, or Broken saying what it is."""
    _refuse_irregular(os.stat(path).st_mode)  # not opened at all: a reader that leaves again would end a pipe's writer
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(descriptor, "rb")
    try:
        _refuse_irregular(os.fstat(descriptor).st_mode)
    except Broken:
        stream.close()
        raise
    return stream


def _refuse_irregular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise Broken("it is a folder" if stat.S_ISDIR(mode) else "it is not a file but a pipe, a socket or a device")


_OTHERS = {
    b"version https://git-lfs": "a pointer of git-LFS; fetch the file itself with `git lfs pull`",
    b"<": "a web page; download the file itself",
}


def not_itself(content: bytes) -> str:
    """What a file is that has another one's name, and the next step, by how it begins; "" for none that is known."""
    begin = content[:100].lstrip()
    return next((what for sign, what in _OTHERS.items() if begin.startswith(sign)), "")


def reason(error: Exception) -> str:
    """A few words for what the system or a library says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start:,}"
    return fitted(str(error).strip().partition("\n")[0], 120) or type(error).__name__


def fitted(value: str, most: int) -> str:
    """Text from a file or a library as a piece of a sentence: in one line, and not longer than `most`."""
    text = " ".join("".join(one if one.isprintable() else " " for one in value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def parse_json(text: str) -> Any:
    """A JSON value without repeated keys, numbers that are none, or nesting without end. Raises Broken."""
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise Broken(f"{error.msg[0].lower()}{error.msg[1:].removesuffix(' at')} on line {error.lineno}") from error
    except RecursionError as error:
        raise Broken("it is nested too deeply") from error
    return plain(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise Broken(f"{fitted(repr(repeated), 60)} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise Broken(f"{text} is not a number")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(fitted(text, 30))


def _integer(text: str) -> int:
    if len(text) > 21:  # Python converts no more than 4,300 digits, and `plain` refuses what is left of the others
        raise Broken(_TOO_LARGE)
    return int(text)


def plain(value: Any, depth: int = 0) -> Any:
    """A copy that is text, finite numbers, lists and mappings of text alone, and no part of it twice. Raises Broken."""
    if depth > MAX_DEPTH:
        raise Broken("it is nested too deeply")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise Broken(f"the key {fitted(str(key), 60)} is not text, so write it in quotes")
        return {plain(key): plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry, depth + 1) for entry in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Broken("it holds half a character") from error
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Broken(f"{value} is not a number")
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            raise Broken(_TOO_LARGE)
    elif value is not None:
        raise Broken(f"{fitted(str(value), 60)} is neither text nor a number, so write it in quotes")
    return value


def validated(value: Any, model: type[Model], kind: Kind, *, source: str) -> Model:
    """A JSON value read from `source`, as the model of what it should be. Raises the kind's error, naming a field."""
    if kind.schema is not None:
        check_schema(value, kind, source=source)
        value = {key: entry for key, entry in value.items() if key != SCHEMA_KEY}
    try:
        return _adapter(model).validate_json(json.dumps(value), strict=True)
    except ValidationError as cause:
        raise kind.error(f"{source} is not {kind.what} ({_first(cause)}); {kind.remedy}.") from cause


def check_schema(value: Any, kind: Kind, *, source: str) -> None:
    """Raises the kind's error when `value` is no object, or was written by an older or newer msd."""
    found = value.get(SCHEMA_KEY) if isinstance(value, dict) else None
    if type(found) is not int or kind.schema is None:
        raise kind.error(f"{source} is not {kind.what} (it says no schema); {kind.remedy}.")
    if found < kind.schema:
        step = kind.outdated or kind.remedy
        raise kind.error(f"{source} was {kind.made} by an older msd (schema {found}); {step}.")
    if found > kind.schema:
        read = f"schema {found}, this one reads {kind.schema}"
        raise kind.error(f"{source} was {kind.made} by a newer msd ({read}); update msd.")


@lru_cache(maxsize=64)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _first(error: ValidationError) -> str:
    """What is wrong with the first wrong field."""
    first = error.errors(include_url=False)[0]
    where = fitted(".".join(str(step) for step in first["loc"]), 80)
    if first["type"] == "missing":
        return f"it lacks '{where}'"
    if first["type"] == "extra_forbidden":
        return f"it has an unknown field '{where}'"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = first["input"]
    got = f"{fitted(repr(given), 40)}" if isinstance(given, str | int | float | None) else f"a {type(given).__name__}"
    return f"{where or 'it'} {fitted(message, 160)}, not {got}"


def clause(error: MsdError) -> str:
    """What an error says is wrong, without the next step and the full stop."""
    return str(error).rpartition("; ")[0] or str(error).removesuffix(".")


def set_aside(path: Path, error: MsdError) -> None:
    """Give a file of mere bookkeeping another name, never that of another one, and warn of the `error` it was broken by."""
    problem, number, kept = clause(error), 0, path.with_name(f"{path.name}{BROKEN}")
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.name}{BROKEN}-{number}")
    try:
        path.rename(kept)
        warn(f"{problem}; it was set aside as {kept.name}, and msd goes on without it.")
    except OSError:
        warn(f"{problem}; msd goes on without it.")
