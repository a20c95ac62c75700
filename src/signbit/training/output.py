"""The folder that a run writes to, checked before anything starts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from signbit.errors import SignbitError
from signbit.training.recipe import Recipe, parse_recipe


def prepare_output(output: Path, recipe: Recipe, resume: bool) -> None:
    """Check that a run can start, or go on, in ``output``.

    Raises:
        SignbitError: not writable; another run is there; nothing, or another recipe, to resume.
    """
    require_writable(output)
    resolved = output / "recipe.resolved.yaml"
    if not resume:
        if resolved.exists():
            raise SignbitError(
                f"{output} holds a run already: go on with --resume, or choose another --output"
            )
        return
    if not resolved.exists():
        raise SignbitError(f"{output}: no run to resume there")
    try:
        before = yaml.safe_load(resolved.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise SignbitError(f"{resolved}: damaged, the run cannot be resumed") from error
    with contextlib.suppress(SignbitError):  # what differs is found below
        before = parse_recipe(before).model_dump()  # with defaults of fields that came later
    changed = differences(before, recipe.model_dump())
    if changed:
        raise SignbitError(
            f"{output} was started with another recipe: {'; '.join(changed)}. Resume with the same "
            "one, or choose another --output"
        )


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = list(dict.fromkeys([*before, *now]))
        pairs = [(str(key), before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(before, now, strict=True))]
    else:
        return [] if before == now else [f"{path} was {before!r}, now {now!r}"]
    return [d for key, a, b in pairs for d in differences(a, b, f"{path}.{key}".lstrip("."))]


def require_writable(folder: Path) -> None:
    """Create ``folder`` and a file in it, and remove that file.

    Raises:
        SignbitError: it cannot be written, or is no folder; says so before any work is lost.
    """
    if folder.exists() and not folder.is_dir():
        raise SignbitError(f"output folder {folder}: a file of that name is in the way")
    probe = folder / ".signbit-write-test"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise SignbitError(
            f"output folder {folder}: cannot be written ({reason}); choose another with --output"
        ) from error
