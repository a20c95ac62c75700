"""A&B BNN against what it gives up: seven narrow networks on CIFAR-10, each with several seeds.

All are trained by `recipes/ab-narrow-cifar10.yaml` with only what distinguishes them changed: the
activation, the scale of the binary convolutions, the normalisation. Networks with batch norm
need no gradient clipping and have none; the full-precision one has one stage of as many epochs.
How runs go on and what is written where: `benchmarks/cifar_runs.py`.

    python -m benchmarks.ab_cifar --data PATH                 # hours on one core
    python -m benchmarks.ab_cifar --data PATH --seeds 0       # one run of each
    python -m benchmarks.ab_cifar --summary                   # only the table and the picture
"""

from __future__ import annotations

import copy
from pathlib import Path

import yaml

from benchmarks.cifar_runs import Comparison
from signbit.training import Recipe, parse_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "ab-narrow-cifar10.yaml"

# name -> arguments of ab_reactnet18; None: ResNet-18 in full precision
NETWORKS: dict[str, dict[str, str] | None] = {
    "qrprelu": {},
    "rleakyrelu": {"activation": "rleakyrelu"},
    "rprelu": {"activation": "rprelu"},
    "power-of-two": {"scale": "power_of_two"},
    "normalizer-free": {"variant": "normalizer_free"},
    "batch-norm": {"variant": "batch_norm"},
    "full-precision": None,
}


def network_recipe(name: str, seed: int, runs: Path) -> Recipe:
    """The recipe of one network of `NETWORKS`."""
    tree = yaml.safe_load(RECIPE.read_text("utf-8"))
    tree["seed"] = seed
    options = NETWORKS[name]
    if options is None:
        tree["model"]["name"] = "resnet18"
        epochs = sum(stage["epochs"] for stage in tree["stages"])
        first = tree["stages"][0]
        tree["stages"] = [{**first, "name": "full-precision", "epochs": epochs}]
        del tree["stages"][0]["binary_weights"]
    else:
        tree["model"]["options"] = options
    for stage in tree["stages"]:
        optimizer = copy.copy(stage["optimizer"])
        if options is None or options.get("variant") == "batch_norm":
            optimizer.pop("agc")
        slopes = _slopes(options)
        if "decay_exclude" in optimizer:
            optimizer["decay_exclude"] = [*slopes, "head.*"]
        if slopes != ["*.exponent"]:
            optimizer.pop("lr_scale")
        stage["optimizer"] = optimizer
    return parse_recipe(tree, name)


def _slopes(options: dict[str, str] | None) -> list[str]:
    """The learned slopes of activations, which do not decay."""
    if options is None or options.get("activation") == "rleakyrelu":
        return []
    real = options.get("activation") == "rprelu" or "variant" in options
    return ["*.slope"] if real else ["*.exponent"]


COMPARISON = Comparison(
    "JPEG CIFAR-10, narrow networks", "ab_cifar10", tuple(NETWORKS), network_recipe
)

if __name__ == "__main__":
    COMPARISON.main(__doc__ or "")
