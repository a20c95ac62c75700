"""Teachers measured and ranked, and what the score says of itself."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from signbit.data import load_source
from signbit.errors import DataError, SignbitError
from signbit.training import knowledge_complexity, rank_teachers
from signbit.training.ranking import TeacherFacts, measure_teacher
from signbit.training.teacher import Teacher

SOURCE = load_source("digits").limited(60)


def facts(name="a", parameters=10**6, cross_entropy=0.5, accuracy=0.9):
    return TeacherFacts(name, parameters, cross_entropy, accuracy, 100)


def test_the_formula():
    assert knowledge_complexity(facts()) == pytest.approx(math.log(2) / 0.501)
    assert knowledge_complexity(facts(cross_entropy=0), eps=0.25) == pytest.approx(4 * math.log(2))
    assert knowledge_complexity(facts(parameters=10**7)) > knowledge_complexity(facts())
    assert knowledge_complexity(facts(cross_entropy=0.4)) > knowledge_complexity(facts())


def test_facts_are_those_of_a_slow_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    teacher = Teacher(model, (0.4,), (0.3,), SOURCE)
    found = measure_teacher("net", teacher, SOURCE.val, SOURCE)
    loss, right = 0.0, 0
    for image, label in zip(SOURCE.val.images, SOURCE.val.labels, strict=True):
        pixels = torch.from_numpy((image / 255 - 0.4) / 0.3).permute(2, 0, 1)[None].float()
        row = model(pixels)[0].tolist()
        loss += math.log(sum(math.exp(value) for value in row)) - row[label]
        right += int(np.argmax(row) == label)
    assert found.parameters == 64 * 10 + 10 + 20
    assert found.images == len(SOURCE.val) == 60
    assert found.cross_entropy == pytest.approx(loss / 60, rel=1e-5)
    assert found.accuracy == right / 60


def test_what_cannot_be_measured():
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (0.4,), (0.3,), SOURCE)
    with pytest.raises(DataError, match="no image"):
        measure_teacher("net", teacher, SOURCE.val.subset(np.arange(0)), SOURCE)
    teacher.model[1].bias[3] = torch.nan
    with pytest.raises(SignbitError, match="net: its outputs for these images are not finite"):
        measure_teacher("net", teacher, SOURCE.val, SOURCE)


def test_the_least_complex_comes_first():
    candidates = [facts("large", 10**8), facts("small", 10**5), facts("middle", 10**6)]
    ranking = rank_teachers(candidates)
    assert [row["name"] for row in ranking.rows()] == ["small", "middle", "large"]
    assert [row["rank"] for row in ranking.rows()] == [1, 2, 3]
    assert ranking.scores == tuple(knowledge_complexity(each) for each in ranking.facts)
    assert "signbit's reconstruction" in ranking.note
    assert "not the paper's" in ranking.note


def test_any_function_can_take_its_place():
    def small_error(each):
        return each.accuracy

    ranking = rank_teachers([facts("b", accuracy=0.8), facts("a", accuracy=0.7)], small_error)
    assert [each.name for each in ranking.facts] == ["a", "b"]
    assert ranking.score_name == "small error"
    assert ranking.note == ""


def test_nothing_to_rank():
    with pytest.raises(SignbitError, match="no teacher to rank"):
        rank_teachers([])
    with pytest.raises(SignbitError, match="a: its score is inf"):
        rank_teachers([facts()], lambda each: math.inf)


def test_files(tmp_path):
    ranking = rank_teachers([facts("a"), facts("b", 10**7, accuracy=0.5)])
    ranking.write(tmp_path / "new")
    with (tmp_path / "new" / "teachers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b"]
    assert float(rows[1]["score"]) == ranking.scores[1]
    assert json.loads((tmp_path / "new" / "teachers.json").read_text()) == ranking.to_dict()
    assert (tmp_path / "new" / "teachers.png").read_bytes().startswith(b"\x89PNG")
