"""Finding a recipe by path or by bare name."""

from __future__ import annotations

import difflib
from pathlib import Path

from signbit.errors import RecipeError

_PACKAGE = Path(__file__).resolve().parents[1]


def recipe_folders() -> list[Path]:
    """Folders with signbit's own recipes: the installed copy, then the repository's."""
    candidates = [_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes"]
    return [folder for folder in candidates if any(folder.glob("*.yaml"))]


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path, or by its bare name such as ``digits``.

    Raises:
        RecipeError: no such file; lists the known names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for folder in recipe_folders() for file in folder.glob("*.yaml")}
    if (found := known.get(name.removesuffix(".yaml"))) is not None:
        return found
    close = difflib.get_close_matches(path.stem, known, 1, 0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise RecipeError(f"{name}: no such file or recipe; {hint}known: {', '.join(sorted(known))}")
