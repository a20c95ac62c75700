"""Which network teaches best: candidates measured on validation images and ranked by a score.

BNext (arXiv 2211.12933) ranks teachers by their *knowledge complexity*, made up of how valid their
soft labels are and how many parameters they have, and has a student learn from the least complex
first. The paper's equation is not known to signbit's authors:
:func:`knowledge_complexity` is their own reconstruction from that description, and not the paper's.
Any other function of :class:`TeacherFacts` can take its place.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from signbit.data.base import DataSource, ImageDataset
from signbit.data.loader import BatchLoader
from signbit.errors import DataError, SignbitError
from signbit.tasks import classification
from signbit.training.files import write_json, write_text
from signbit.training.output import require_writable
from signbit.training.teacher import Teacher

NOTE = (
    "knowledge complexity is signbit's reconstruction, log(1 + parameters / 1e6) / (cross-entropy "
    "+ 0.001): the idea is of arXiv 2211.12933, the formula is not the paper's"
)
COLUMNS = ("rank", "name", "parameters", "cross_entropy", "accuracy", "images", "score")


@dataclass(frozen=True)
class TeacherFacts:
    """What is known of a candidate.

    Attributes:
        name: what it is called.
        parameters: how many numbers it has learnt.
        cross_entropy: mean over the images, against their labels, in nats.
        accuracy: share of right predictions, in [0, 1].
        images: how many there were.
    """

    name: str
    parameters: int
    cross_entropy: float
    accuracy: float
    images: int


Score = Callable[[TeacherFacts], float]


def knowledge_complexity(facts: TeacherFacts, eps: float = 1e-3) -> float:
    """``log(1 + P) / (H + eps)`` with P million parameters and cross-entropy H in nats.

    signbit's reconstruction, not the equation of arXiv 2211.12933: it grows with the parameters and
    with how well soft labels agree with the true ones, as the paper describes. ``eps`` bounds it
    for a teacher without error.
    """
    return math.log1p(facts.parameters / 1e6) / (facts.cross_entropy + eps)


def measure_teacher(
    name: str, teacher: Teacher, dataset: ImageDataset, source: DataSource
) -> TeacherFacts:
    """Count a teacher's parameters and evaluate it on images of ``source``.

    Raises:
        DataError: there is no image.
        SignbitError: its outputs are not finite.
    """
    if not len(dataset):
        raise DataError("there is no image to measure teachers on")
    device = next((p.device for p in teacher.model.parameters()), torch.device("cpu"))
    loader = BatchLoader(dataset, source.mean, source.std, batch_size=250)
    logits = [teacher(images.to(device)).float().cpu().numpy() for images, _ in loader]
    with np.errstate(invalid="ignore", over="ignore"):
        result = classification.score(np.concatenate(logits), dataset.labels)
    if not math.isfinite(result.loss):
        raise SignbitError(f"{name}: its outputs for these images are not finite")
    parameters = sum(p.numel() for p in teacher.model.parameters())
    return TeacherFacts(name, parameters, result.loss, result.accuracy, len(dataset))


@dataclass(frozen=True)
class Ranking:
    """Candidates by increasing score, which is the order for assistants that take turns.

    Attributes:
        facts: of the candidates, in that order.
        scores: their scores.
        score_name: what the score is called.
        note: what must be said beside it, if anything.
    """

    facts: tuple[TeacherFacts, ...]
    scores: tuple[float, ...]
    score_name: str
    note: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """A row a candidate, with the keys of :data:`COLUMNS`; ranks count from 1."""
        return [
            {"rank": rank, **asdict(facts), "score": score}
            for rank, (facts, score) in enumerate(zip(self.facts, self.scores, strict=True), 1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the score's name, the note, and the rows."""
        return {"score": self.score_name, "note": self.note, "teachers": self.rows()}

    def write(self, output: str | Path) -> None:
        """Write ``teachers.csv``, ``teachers.json`` and ``teachers.png`` into a folder.

        Raises:
            SignbitError: it cannot be written.
        """
        from signbit.plots import plot_teachers

        output = Path(output)
        require_writable(output)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        write_text(output / "teachers.csv", buffer.getvalue())
        write_json(output / "teachers.json", self.to_dict())
        plot_teachers(
            self.rows(), output / "teachers.png", score_name=self.score_name, note=self.note
        )


def rank_teachers(facts: Iterable[TeacherFacts], score: Score = knowledge_complexity) -> Ranking:
    """Rank candidates by increasing score; of equal ones the first stays first.

    Args:
        facts: of the candidates, as :func:`measure_teacher` finds them.
        score: any function of them.

    Raises:
        SignbitError: there is no candidate, or a score that is no number.
    """
    scored = [(score(each), each) for each in facts]
    if not scored:
        raise SignbitError("there is no teacher to rank")
    for value, each in scored:
        if not math.isfinite(value):
            raise SignbitError(f"{each.name}: its score is {value}")
    scored.sort(key=lambda pair: pair[0])
    name = getattr(score, "__name__", "score").replace("_", " ")
    note = NOTE if score is knowledge_complexity else ""
    scores, ordered = zip(*scored, strict=True)
    return Ranking(ordered, scores, name, note)
