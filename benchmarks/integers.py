"""Integer programs beside float ones: speed of ab_reactnet18 at 224x224, and accuracy of runs.

Speed: the network compiled in float arithmetic (stem, shortcuts and head in 8 bits), in integers
with an 8-bit stem, and in integers without any multiplication; random weights, and ranges of
photographs. Only the stem's time depends on weights, by their digits: they are drawn from a normal
distribution, and so have about as many as a trained stem's. "body" is everything but
the images' conversion, the stem with its pooling, and the head: the sum of those steps in the
engine's own profile.

    python -m benchmarks.integers speed --calibration PATH

Accuracy: trained runs, as PyTorch has them, in 8 bits, and in integers, over the whole test set;
with the certificate's count of multiplications, and what saturated.

    python -m benchmarks.integers accuracy --data PATH RUN...
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

import signbit
from benchmarks.common import (
    MEAN,
    STD,
    calibration_batch,
    wide_console,
    write_csv,
)
from signbit.compiler.digits import non_adjacent
from signbit.rivals.engines import pinned
from signbit.rivals.timing import CLOCKS, Quartiles, interleave
from signbit.runtime.benchmark import cpu_name

FLOAT = "float, 8-bit stem"
INTEGER_8BIT = "integer, 8-bit stem"
INTEGER = "integer, no multiplication"
PREPROCESSING = {"mean": MEAN.tolist(), "std": STD.tolist()}
_ENDS = ("stem", "head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    speed = verbs.add_parser("speed")
    speed.add_argument("--rounds", type=int, default=40)
    speed.add_argument("--threads", type=int, default=1)
    speed.add_argument("--isa", help="cap the engine at an instruction set")
    speed.add_argument("--clock", choices=CLOCKS, default="wall")
    speed.add_argument("--calibration", type=Path, help="folder or .tar of photographs")
    speed.add_argument("--output", type=Path, default=Path("results/integers-speed.csv"))
    accuracy = verbs.add_parser("accuracy")
    accuracy.add_argument("runs", nargs="+", type=Path)
    accuracy.add_argument("--data", type=Path)
    accuracy.add_argument("--limit", type=int, help="only the first test images")
    accuracy.add_argument("--output", type=Path, default=Path("results/integers-accuracy.csv"))
    arguments = parser.parse_args()
    if arguments.verb == "speed":
        measure_speed(arguments)
    else:
        measure_accuracy(arguments)


# --- speed ---


def measure_speed(arguments: argparse.Namespace) -> None:
    """Print and write the times of the three programs, interleaved."""
    programs = make_programs(arguments.calibration)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with pinned(arguments.threads):
        sessions = {
            name: compiled.session(threads=arguments.threads, isa=arguments.isa)
            for name, compiled in programs.items()
        }
        runs: dict[str, Callable[[], object]] = {
            name: lambda s=session: s(pixels) for name, session in sessions.items()
        }
        times = interleave(runs, arguments.rounds, arguments.threads, arguments.clock, rivals=False)
        bodies = profile_bodies(sessions, pixels, arguments.rounds)
    isa = next(iter(sessions.values())).isa
    table = Table("ab_reactnet18, 224x224", "ms", "times float's speed", "body ms", "body's speed")
    rows = []
    for name in programs:
        whole = Quartiles.of(times[FLOAT] / times[name])
        body = Quartiles.of(bodies[FLOAT] / bodies[name])
        ms, body_ms = Quartiles.of(times[name]), Quartiles.of(bodies[name])
        table.add_row(name, str(ms), str(whole), str(body_ms), str(body))
        rows.append(
            {"program": name}
            | ms.columns("ms")
            | whole.columns("speed")
            | body_ms.columns("body_ms")
            | body.columns("body_speed")
            | {"threads": arguments.threads, "rounds": arguments.rounds, "cpu": cpu_name()}
            | {"isa": isa, "signbit": signbit.__version__}
        )
    console = wide_console()
    console.print(table)
    (stem,) = (n for n in programs[INTEGER].graph.nodes if n.path == "stem.0" and n.params)
    digits = float((non_adjacent(stem.params["weight"]) != 0).sum(-1).mean())
    console.print(
        f"{cpu_name()}, {isa}, {arguments.threads} thread(s); {digits:.2f} digits a stem's weight",
        highlight=False,
    )
    write_csv(arguments.output, rows)


def make_programs(calibration: Path | None) -> dict[str, signbit.CompiledModel]:
    """The same network, compiled three ways."""
    import torch

    torch.manual_seed(0)
    images = torch.from_numpy(calibration_batch(calibration, 224, 8))
    model = signbit.create_model("ab_reactnet18").eval()
    torch.nn.init.normal_(model.stem[0].weight)
    in_8bit = signbit.calibrate(signbit.to_8bit(model, images[:1]), [images])
    return {
        FLOAT: signbit.compile(in_8bit, images[:1], preprocessing=PREPROCESSING),
        INTEGER_8BIT: compile_integers(model, images, stem="multiply"),
        INTEGER: compile_integers(model, images),
    }


def compile_integers(model: Any, images: Any, **options: Any) -> signbit.CompiledModel:
    return signbit.compile(
        model,
        images[:1],
        preprocessing=PREPROCESSING,
        arithmetic="integer",
        integer=signbit.IntegerOptions(**options),
        calibration=[images],
    )


def profile_bodies(
    sessions: dict[str, signbit.Session], pixels: np.ndarray, rounds: int
) -> dict[str, np.ndarray]:
    """Milliseconds of the body's steps of each program, (rounds,), interleaved."""
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            steps = session.profile(pixels, rounds=1, peak=False)
            body = [s["ms"] for s in steps if s["name"].split(".")[0] not in _ENDS]
            found[name].append(sum(body))
    return {name: np.array(values) for name, values in found.items()}


# --- accuracy ---


def measure_accuracy(arguments: argparse.Namespace) -> None:
    """Print and write the accuracies of every run in three arithmetics."""
    rows = [evaluate(run, arguments) for run in track(arguments.runs, "runs")]
    table = Table(
        "run", "PyTorch", "8-bit ends", "integer", "points", "multiplications", "saturated"
    )
    for row in rows:
        table.add_row(
            row["run"],
            *(f"{row[key]:.2%}" for key in ("pytorch", "eight_bit", "integer")),
            f"{row['integer_points']:+.2f}",
            f"{row['multiplications']:,}",
            f"{row['saturations']:,} of {row['numbers']:.3g}",
        )
    wide_console().print(table)
    write_csv(arguments.output, rows)


def evaluate(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run's row."""
    from signbit.cli.certify import certify_file
    from signbit.cli.compile import calibration_images, compile_trained
    from signbit.cli.networks import load_data
    from signbit.compiler import read_graph, reference
    from signbit.tasks.classification import evaluate as evaluate_torch
    from signbit.tasks.classification import evaluate_engine
    from signbit.training import load_trained

    trained = load_trained(run)
    source = load_data(trained.info, arguments.data)
    source = source if arguments.limit is None else source.limited(arguments.limit)
    test = source.test
    torch_result = evaluate_torch(trained.model, test, trained.mean, trained.std)
    row: dict[str, Any] = {"run": run.name, "images": len(test), "pytorch": torch_result.accuracy}
    with tempfile.TemporaryDirectory() as folder:
        for key, arithmetic in (("eight_bit", "float"), ("integer", "integer")):
            file = Path(folder) / f"{key}.signbit"
            images = calibration_images(trained, arguments.data, arithmetic)
            compile_trained(trained, file, arithmetic=arithmetic, calibration=images)
            row[key] = evaluate_engine(signbit.load(file, threads=1), test).accuracy
            row[f"{key}_points"] = round(100 * (row[key] - torch_result.accuracy), 4)
            row[f"{key}_bytes"] = file.stat().st_size
        certificate = certify_file(file)
        graph = read_graph(file)
    row["multiplications"] = certificate.total.multiplications
    row["multiplying_layers"] = " ".join(certificate.multiplying + certificate.unsure)
    batches = (test.images[start : start + 100] for start in range(0, len(test), 100))
    row["saturations"] = sum(reference.count_saturations(graph, batches).values())
    numbers = sum(int(np.prod(node.outputs[0].shape)) for node in graph.nodes)
    row["numbers"] = numbers * len(test)
    return row


if __name__ == "__main__":
    main()
