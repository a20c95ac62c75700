"""Presets: the parameters of a piece of hardware as YAML, every physical one with its unit.

A preset says what kind of hardware it describes (`kind`), in a sentence what it is, and where its
numbers come from (`source`). Counts (rows, lanes, units) are plain integers of 1 or more. Physical
quantities are strings, a number and its unit: ``clock: 700 MHz``, ``dram_bandwidth: 48 B/cycle``. A
bare number in such a place is refused, for nobody can tell kilobytes from bytes.

The kinds are dataclasses: :class:`signbit.hardware.systolic.SystolicArray`,
:class:`signbit.hardware.streaming.StreamingFabric`,
:class:`signbit.hardware.photonic.PhotonicAccelerator`. Their fields are declared with
:func:`count`, :func:`quantity` and :func:`choice`, and :func:`load` reads a file into them.

Imports the standard library only; PyYAML when a file is read.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from signbit.errors import SignbitError

FOLDER = Path(__file__).with_name("presets")
UNLIMITED = "unlimited"

# dimension -> unit -> factor to the unit that the fields are kept in (the first of each)
UNITS: dict[str, dict[str, float]] = {
    "frequency": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "symbol rate": {"S/s": 1.0, "kS/s": 1e3, "MS/s": 1e6, "GS/s": 1e9},
    "frame rate": {"frame/s": 1.0},
    "memory": {
        "bit": 1.0,
        "B": 8.0,
        "kB": 8e3,
        "KiB": 8 * 1024.0,
        "MB": 8e6,
        "MiB": 8 * 1024.0**2,
    },
    "bandwidth": {"bit/cycle": 1.0, "B/cycle": 8.0},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12},
    "power": {"W": 1.0, "mW": 1e-3, "uW": 1e-6, "nW": 1e-9},
    "energy": {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12, "fJ": 1e-15},
}

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*\Z")
_HEADER = ("kind", "description", "source")
T = TypeVar("T")


class PresetError(SignbitError):
    """A preset is unknown, or a field of one is missing, unknown or wrong: file and field."""


def count(default: Any = dataclasses.MISSING) -> Any:
    """A field that counts things: an integer of 1 or more."""
    return dataclasses.field(default=default, metadata={"reader": _Count()})


def number(default: Any = dataclasses.MISSING) -> Any:
    """A field without a unit because it is a ratio: a number above 0."""
    return dataclasses.field(default=default, metadata={"reader": _Ratio()})


def quantity(dimension: str, default: Any = dataclasses.MISSING, *, unlimited: bool = False) -> Any:
    """A physical field, kept in the first unit of its dimension (`UNITS`); above 0.

    With `unlimited`, that word is taken too, and kept as infinity: the limit is not modelled.
    """
    reader = _Quantity(dimension, unlimited)
    return dataclasses.field(default=default, metadata={"reader": reader})


def choice(options: Sequence[str], default: Any = dataclasses.MISSING) -> Any:
    """A field that is one of some words."""
    return dataclasses.field(default=default, metadata={"reader": _Choice(tuple(options))})


def several(options: Sequence[str], default: Any = dataclasses.MISSING) -> Any:
    """A field that is a list of some words, without repetition; kept as a tuple."""
    return dataclasses.field(default=default, metadata={"reader": _Several(tuple(options))})


def text(default: Any = dataclasses.MISSING) -> Any:
    """A field of words for people."""
    return dataclasses.field(default=default, metadata={"reader": _Text()})


class _Count:
    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, got {value!r}")
        return self.check(value)

    def check(self, value: Any) -> int:
        if value < 1:
            raise ValueError(f"must be at least 1, got {value}")
        return int(value)


class _Ratio:
    def read(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, got {value!r}")
        return self.check(value)

    def check(self, value: Any) -> float:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"must be above 0, got {value}")
        return float(value)


class _Quantity:
    def __init__(self, dimension: str, unlimited: bool) -> None:
        self.units = UNITS[dimension]
        self.dimension = dimension
        self.unlimited = unlimited

    def read(self, value: Any) -> float:
        if self.unlimited and value == UNLIMITED:
            return math.inf
        known = ", ".join(self.units)
        match = _NUMBER.match(str(value)) if not isinstance(value, bool) else None
        if match is None:
            raise ValueError(f"must be a number and its unit ({known}), got {value!r}")
        digits, unit = match.groups()
        if not unit:
            example = list(self.units)[-1]
            raise ValueError(f"has no unit: write e.g. '{digits} {example}' (units: {known})")
        if unit not in self.units:
            raise ValueError(f"is a {self.dimension}, in {known}; {unit!r} is none of these")
        return self.check(float(digits) * self.units[unit])

    def check(self, value: Any) -> float:
        if math.isnan(value) or value <= 0:
            raise ValueError(f"must be above 0, got {value:g} {next(iter(self.units))}")
        if math.isinf(value) and not self.unlimited:
            raise ValueError("must be finite")
        return float(value)


class _Choice:
    def __init__(self, options: tuple[str, ...]) -> None:
        self.options = options

    def read(self, value: Any) -> str:
        return self.check(value)

    def check(self, value: Any) -> str:
        if value not in self.options:
            raise ValueError(f"must be one of {', '.join(self.options)}, got {value!r}")
        return value


class _Several(_Choice):
    def read(self, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"must be a list of words of {', '.join(self.options)}")
        return self.check(tuple(value))

    def check(self, value: Any) -> Any:
        for word in value:
            super().check(word)
        if len(set(value)) < len(value):
            raise ValueError("names a word twice")
        return tuple(value)


class _Text:
    def read(self, value: Any) -> str:
        return self.check(value)

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"must be a text, got {value!r}")
        return value.strip()


def check_fields(value: Any, where: str) -> None:
    """Check every declared field of a dataclass; PresetError names `where` and the field.

    What the kinds of hardware call when they are made, so that a size of 0 is refused wherever it
    comes from.
    """
    for each in dataclasses.fields(value):
        held = getattr(value, each.name)
        if held is None and each.default is None:
            continue
        try:
            object.__setattr__(value, each.name, each.metadata["reader"].check(held))
        except (TypeError, ValueError) as error:
            raise PresetError(f"{where}: {each.name} {error}") from None


def available(kind: str | None = None) -> list[str]:
    """The names of the presets that come with signbit; of one kind, or all."""
    found = {path.stem: _parse(path).get("kind") for path in sorted(FOLDER.glob("*.yaml"))}
    return [name for name, its in found.items() if its is not None and kind in (None, its)]


def load(name: str | Path, cls: type[T], kind: str) -> T:
    """A preset by its name, or one's own by the path of its file, as an instance of `cls`.

    A name with a suffix or a folder in it is a path. Raises PresetError for an unknown name (with
    the nearest), a file of another kind, and every field that is missing, unknown, without unit or
    out of range, with file and field.
    """
    path = _find(name, kind)
    found, fields = _read(path)
    if found != kind:
        known = ", ".join(available(kind))
        raise PresetError(
            f"{path.name}: kind is {found!r}, and {kind!r} is needed here: one of {known}, or the "
            "path of a file of your own"
        )
    return _build(path, fields, cls)


def _find(name: str | Path, kind: str) -> Path:
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise PresetError(f"{path}: there is no such file")
        return path
    own = FOLDER / f"{name}.yaml"
    if own.is_file():
        return own
    known = available(kind)
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), lower, 1, 0.4)
    hint = f"; did you mean {lower[close[0]]}?" if close else "."
    raise PresetError(
        f"unknown {kind} preset {str(name)!r}{hint} Known: {', '.join(known)}, "
        "or the path of a file of your own"
    )


def _read(path: Path) -> tuple[str, Mapping[str, Any]]:
    fields = _parse(path)
    if not isinstance(fields.get("kind"), str):
        raise PresetError(f"{path.name}: kind is missing: a preset says what it describes")
    return fields["kind"], fields


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise SignbitError(
            "presets of hardware are YAML files and need PyYAML: pip install 'signbit[train]'"
        ) from error
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PresetError(f"{path.name}: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise PresetError(f"{path.name}: must be fields and their values")
    return fields


def _build(path: Path, found: Mapping[str, Any], cls: type[T]) -> T:
    declared = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in found:
        if key not in declared and key not in _HEADER:
            close = difflib.get_close_matches(str(key), declared, 1, 0.4)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise PresetError(
                f"{path.name}: {key} is not a field of a {found['kind']} preset{hint}"
            )
    values: dict[str, Any] = {"name": path.stem}
    for name, each in declared.items():
        if name == "name":
            continue
        if name not in found:
            if each.default is dataclasses.MISSING:
                raise PresetError(f"{path.name}: {name} is missing")
            continue
        try:
            values[name] = each.metadata["reader"].read(found[name])
        except ValueError as error:
            raise PresetError(f"{path.name}: {name} {error}") from None
    for name in _HEADER[1:]:
        if name not in found:
            raise PresetError(f"{path.name}: {name} is missing")
    return cls(**values)
