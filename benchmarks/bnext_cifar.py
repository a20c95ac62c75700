"""What BNext's parts are worth: narrow networks on CIFAR-10, each with several seeds.

All are trained by `recipes/bnext-narrow-cifar10.yaml` with only what distinguishes them changed:
ELM attention, Info-RCP, the labels; beside them ReActNet-18 and, in full precision, ResNet-18.
`distilled` and `consecutive` learn from full-precision networks
(`recipes/resnet18-teacher-cifar10.yaml`), which must have been trained before, into the folders
`teacher-strong`, `teacher-medium` and `teacher-weak` of `--runs`. How runs go on and what is
written where: `benchmarks/cifar_runs.py`.

    R=recipes/resnet18-teacher-cifar10.yaml
    signbit train $R --data PATH --output runs/bnext_cifar10/teacher-strong
    signbit train $R --data PATH --output runs/bnext_cifar10/teacher-medium --set model.width=0.25
    signbit train $R --data PATH --output runs/bnext_cifar10/teacher-weak --set model.width=0.125
    python -m benchmarks.bnext_cifar --data PATH
    python -m benchmarks.bnext_cifar --summary                # only the table and the picture
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.cifar_runs import Comparison
from signbit.training import Recipe, parse_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "bnext-narrow-cifar10.yaml"

# name -> options of bnext18, or another network's name
NETWORKS: dict[str, dict[str, bool] | str] = {
    "bnext": {},
    "no-elm": {"elm_attention": False},
    "no-rcp": {"info_rcp": False},
    "neither": {"elm_attention": False, "info_rcp": False},
    "distilled": {},
    "consecutive": {},
    "reactnet18": "reactnet18",
    "full-precision": "resnet18",
}
# name -> assistants of the strong teacher; without an entry, hard labels
ASSISTANTS: dict[str, tuple[str, ...]] = {"distilled": (), "consecutive": ("weak", "medium")}


def network_recipe(name: str, seed: int, runs: Path) -> Recipe:
    """The recipe of one network of `NETWORKS`."""
    tree: dict[str, Any] = yaml.safe_load(RECIPE.read_text("utf-8"))
    tree["seed"] = seed
    options = NETWORKS[name]
    (stage,) = tree["stages"]
    decays = stage["optimizer"]["decays"]
    if isinstance(options, str):
        tree["model"] = {**tree["model"], "name": options, "options": {}}
        del stage["progressive"]
        stage["name"] = options
        stage["optimizer"]["decays"] = {"stages.*.conv*.weight": decays["*.conv.weight"]}
    else:
        tree["model"]["options"].update(options)
        if not options.get("info_rcp", True):
            for part in ("*.scale", "*.se.?.weight"):
                del decays[part]
    if name in ASSISTANTS:
        stage["loss"] = {"teachers": [_teacher(runs, "strong")]}
        if ASSISTANTS[name]:
            stage["loss"]["assistants"] = [_teacher(runs, each) for each in ASSISTANTS[name]]
    return parse_recipe(tree, name)


def _teacher(runs: Path, name: str) -> dict[str, str]:
    return {"checkpoint": str(runs / f"teacher-{name}")}


COMPARISON = Comparison(
    "JPEG CIFAR-10, narrow networks", "bnext_cifar10", tuple(NETWORKS), network_recipe
)

if __name__ == "__main__":
    COMPARISON.main(__doc__ or "")
