"""A binary network, its full-precision rival and that one's 8-bit form: scored and timed.

The rival is trained on the same data for as many epochs, made 8-bit by ONNX Runtime's tools
(static, per channel, calibrated on training images) and run by OpenVINO and ONNX Runtime. All are
scored by the same code on the same test examples, and timed in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from signbit.data.normalize import normalize
from signbit.errors import SignbitError
from signbit.rivals.engines import (
    INT8_VARIANTS,
    OnnxRuntime,
    OpenVINO,
    Signbit,
    export_onnx,
    pinned,
    quantize,
)
from signbit.rivals.timing import Quartiles, interleave
from signbit.tasks.base import Predict, Task, bootstrap, engine_predict, torch_predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from signbit.data.base import Source
    from signbit.training import TrainedModel

FLOAT, INT8, BINARY = "full precision", "8-bit", "binary"
TRIALS = 5  # rounds to find the fastest 8-bit form
CALIBRATION = 64  # images


@dataclass
class Row:
    """A network in an engine.

    Attributes:
        network: `FLOAT`, `INT8` or `BINARY`.
        engine: what runs it.
        variant: how it was made 8-bit.
        bytes: size of its file.
        scores: value and interval of every score.
        records: of the test examples, for paired intervals.
        ms: quartiles by number of threads.
        speed: times as fast as the fastest 8-bit engine, by number of threads.
    """

    network: str
    engine: str
    variant: str
    bytes: int
    scores: dict[str, tuple[float, float, float]]
    records: list[Any]
    ms: dict[int, Quartiles] = field(default_factory=dict)
    speed: dict[int, Quartiles] = field(default_factory=dict)


def score(task: Task, records: list[Any]) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) of every score, the interval by bootstrap over examples."""
    intervals = bootstrap(task, records)
    return {name: (value, *intervals[name]) for name, value in task.summarize(records).items()}


def paired_difference(
    task: Task, first: Sequence[Any], second: Sequence[Any], *, rounds: int = 1000
) -> tuple[float, float, float]:
    """How much more ``first`` scores than ``second`` on the same examples, with a 95 % interval.

    Both are drawn together, so that what makes an example hard for either does not count.
    """
    generator = np.random.default_rng(0)
    metric = task.metric
    draws = []
    for _ in range(rounds):
        chosen = generator.integers(0, len(first), len(first))
        values = [task.summarize([part[i] for i in chosen])[metric] for part in (first, second)]
        draws.append(values[0] - values[1])
    value = task.summarize(first)[metric] - task.summarize(second)[metric]
    return value, float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def compare(
    task: Task,
    source: Source,
    data: dict[str, Any],
    binary: Path,
    rival: TrainedModel,
    folder: Path,
    *,
    threads: Sequence[int],
    rounds: int = 30,
    isa: str | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[Row], dict[str, Predict]]:
    """Score and time a compiled network beside its rival.

    Args:
        task: scores.
        source: its test split is scored, its training images calibrate.
        data: the recipe's ``data`` with every default.
        binary: the compiled network.
        rival: trained in full precision.
        folder: where ONNX files go.
        threads: numbers of threads to time with.
        rounds: timed runs of each.
        isa: cap of signbit's instruction set.
        say: told what happens.

    Returns:
        The rows, and how each kind of network predicts, for pictures.

    Raises:
        SignbitError: no 8-bit form runs in an engine.
    """
    import torch

    import signbit

    model = rival.model.eval().to(memory_format=torch.contiguous_format)
    batches = task.calibration_batches(source, data, count=16)
    images = [image for batch in batches for image in batch.contiguous().numpy()]
    calibration = images[:CALIBRATION]
    fp32 = export_onnx(model, calibration[0][None], folder / "float.onnx", any_size=True)
    int8: dict[str, Path] = {}
    for name, options in INT8_VARIANTS.items():
        say(f"8 bits: {name}")
        path = folder / f"int8-{name.replace(' ', '-')}.onnx"
        int8[name] = quantize(fp32, calibration, path, **options)

    channels, height, width = source.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, channels), np.uint8)
    x = np.ascontiguousarray(normalize(pixels, rival.mean, rival.std))
    makers: dict[str, Callable[[Path, int], Any]] = {
        "OpenVINO": lambda path, count: OpenVINO(path, x.shape, count),
        "ONNX Runtime": lambda path, count: OnnxRuntime(path, count, 1, (height, width)),
    }
    any_size: dict[str, Callable[[Path], Any]] = {
        "OpenVINO": lambda path: OpenVINO(path, None, 1),
        "ONNX Runtime": lambda path: OnnxRuntime(path, 1, None),
    }

    def predictor(network: Any) -> Predict:
        def predict(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
            return network.predict(np.ascontiguousarray(normalize(image, rival.mean, rival.std)))

        return predict

    def records(predict: Predict) -> list[Any]:
        return list(task.evaluate(predict, source, "test", data))

    say("scoring: full precision")
    predicts = {FLOAT: torch_predict(model, rival.mean, rival.std)}
    found = records(predicts[FLOAT])
    rows = [Row(FLOAT, "OpenVINO", "", fp32.stat().st_size, score(task, found), found)]
    for engine, make in makers.items():
        # The fastest form and the one that scores best are rarely one: the binary network is
        # compared with the time of the former and the score of the latter.
        ms = _times(int8, make, x, say, engine)
        eight: dict[str, Row] = {}
        for variant in ms:
            say(f"scoring: 8 bits, {engine}, {variant}")
            found = records(predictor(any_size[engine](int8[variant])))
            size = int8[variant].stat().st_size
            eight[variant] = Row(INT8, engine, variant, size, score(task, found), found)
        best = max(eight, key=lambda variant: eight[variant].scores[task.metric][0])
        predicts.setdefault(INT8, predictor(any_size[engine](int8[best])))
        rows += [eight[variant] for variant in dict.fromkeys([min(ms, key=ms.__getitem__), best])]
    say("scoring: binary")
    session = signbit.load(binary, threads=max(threads), isa=isa)
    predicts[BINARY] = engine_predict(session)
    found = records(predicts[BINARY])
    engine = f"signbit {session.isa}"
    rows.append(Row(BINARY, engine, "", binary.stat().st_size, score(task, found), found))

    for count in threads:
        say(f"timing: {count} thread{'s' if count > 1 else ''}")
        with pinned(count):
            contenders: dict[str, Any] = {}
            for index, row in enumerate(rows):
                if row.network == BINARY:
                    contenders[str(index)] = Signbit(signbit.load(binary, threads=count, isa=isa))
                else:
                    path = fp32 if row.network == FLOAT else int8[row.variant]
                    contenders[str(index)] = makers[row.engine](path, count)
            runs = {name: (lambda c=contender: c(x)) for name, contender in contenders.items()}
            times = interleave(runs, rounds, count, "wall")
        # ONNX Runtime cannot be capped, so under a cap it is no measure.
        capped = isa is not None
        eight = [
            i
            for i, row in enumerate(rows)
            if row.network == INT8 and not (capped and row.engine == "ONNX Runtime")
        ]
        best = min(eight, key=lambda i: float(np.median(times[str(i)])))
        for index, row in enumerate(rows):
            row.ms[count] = Quartiles.of(times[str(index)])
            row.speed[count] = Quartiles.of(times[str(best)] / times[str(index)])
    return rows, predicts


def _times(
    int8: dict[str, Path],
    make: Callable[[Path, int], Any],
    x: NDArray[np.float32],
    say: Callable[[str], None],
    engine: str,
) -> dict[str, float]:
    """Milliseconds on one thread of each 8-bit form that an engine runs."""
    with pinned(1):
        networks: dict[str, Any] = {}
        for name, path in int8.items():
            try:
                networks[name] = make(path, 1)
                networks[name](x)
            # Each engine has errors of its own, ONNX Runtime's without a common base.
            except Exception as error:
                networks.pop(name, None)
                reason = str(error).strip().splitlines()[-1]
                say(f"{engine} refuses 8 bits, {name}: {reason}")
        if not networks:
            raise SignbitError(f"{engine} runs none of the rival's 8-bit forms")
        runs = {name: (lambda n=network: n(x)) for name, network in networks.items()}
        times = interleave(runs, TRIALS, 1, "wall")
    return {name: float(np.median(ms)) for name, ms in times.items()}


def as_table(task: Task, rows: Sequence[Row]) -> list[dict[str, object]]:
    """A flat row each, for CSV files."""
    table = []
    for row in rows:
        flat: dict[str, object] = {
            "task": task.name,
            "network": row.network,
            "engine": row.engine,
            "variant": row.variant,
            "bytes": row.bytes,
            "examples": len(row.records),
        }
        for name, (value, low, high) in row.scores.items():
            flat |= {name: round(value, 5), f"{name}_low": round(low, 5)}
            flat[f"{name}_high"] = round(high, 5)
        for count in row.ms:
            flat |= row.ms[count].columns(f"ms_{count}")
            flat |= row.speed[count].columns(f"speed_{count}")
        table.append(flat)
    return table
