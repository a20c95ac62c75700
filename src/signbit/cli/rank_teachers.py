"""``signbit rank-teachers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, plain_table, print_json, stderr, stdout
from signbit.cli.networks import (
    check_split,
    data_recipe,
    load_data,
    load_network,
    run_name,
    told_apart,
)
from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from signbit.data import DataSource
    from signbit.training.ranking import Ranking
    from signbit.training.recipe import TeacherRecipe

_TIMM = "timm:"


def rank_teachers(
    teachers: Annotated[
        list[str], typer.Argument(help="Runs' folders, model.pt files, or timm:NAME.")
    ],
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("teachers"),
    split: Annotated[str, typer.Option(help="Images of which part: train, val or test.")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Resize images to so many pixels for the teachers.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    json: JsonOption = False,
) -> None:
    """Rank candidates for a student's teachers by their knowledge complexity.

    It grows with a teacher's parameters and falls with its cross-entropy on validation images:
    signbit's own reconstruction of an idea of BNext's, not that paper's equation. A student learns
    from the lowest first: write them as loss.assistants, and the highest as loss.teachers.
    """
    check_split(split)
    from signbit.training.output import require_writable
    from signbit.training.ranking import measure_teacher
    from signbit.training.ranking import rank_teachers as rank
    from signbit.training.teacher import load_teacher

    require_writable(output)
    recipes = {name: _recipe(text, input_size) for name, text in _names(teachers).items()}
    source = _data(recipes, data, split)
    dataset = (source if limit is None else source.limited(limit)).split(split)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    loaded = {name: load_teacher(recipe, source, name) for name, recipe in recipes.items()}
    console = stderr()
    facts = []
    for name, teacher in loaded.items():
        console.print(
            f"{name}: {len(dataset)} images ({source.name}, {split})",
            highlight=False,
            soft_wrap=True,
        )
        facts.append(measure_teacher(name, teacher, dataset, source))
    ranking = rank(facts)
    ranking.write(output)
    if json:
        print_json(
            {"output": str(output), "data": source.name, "split": split, **ranking.to_dict()}
        )
        return
    _print(ranking, output)


def _names(teachers: list[str]) -> dict[str, str]:
    """Short names for what was given: a run's folder, a file, a model of timm's.

    Raises:
        SignbitError: a teacher is given twice.
    """
    for text in teachers:
        if teachers.count(text) > 1:
            raise SignbitError(f"{text} is given twice")
    short = [
        text.removeprefix(_TIMM) if text.startswith(_TIMM) else run_name(Path(text).absolute())
        for text in teachers
    ]
    return told_apart(short, teachers)


def _recipe(text: str, input_size: int | None) -> TeacherRecipe:
    from signbit.training.recipe import TeacherRecipe

    if text.startswith(_TIMM):
        return TeacherRecipe(timm=text.removeprefix(_TIMM), input_size=input_size)
    return TeacherRecipe(checkpoint=text, input_size=input_size)


def _data(recipes: dict[str, TeacherRecipe], data: Path | None, split: str) -> DataSource:
    """The data set that the runs among the teachers were trained on.

    Raises:
        DataError: they differ, or a run's training images are among those to measure on.
    """
    infos: dict[str, dict[str, Any]] = {}
    for name, recipe in recipes.items():
        if recipe.checkpoint is not None:
            infos[name] = load_network(Path(recipe.checkpoint)).info
    if not infos:
        return load_data({}, data)
    first, reference = next(iter(infos.items()))
    for name, info in infos.items():
        if info.get("data") != reference.get("data"):
            raise DataError(
                f"{name} was trained on {info.get('data')}, {first} on {reference.get('data')}: "
                "rank teachers of the same data set"
            )
        cuts = [data_recipe(each).get("val_size") for each in (info, reference)]
        if split != "test" and cuts[0] != cuts[1]:
            raise DataError(
                f"{name} and {first} were trained on different parts of {info.get('data')} "
                f"(val_size {cuts[0]} and {cuts[1]}): rank them with --split test"
            )
    return load_data(reference, data)


def _print(ranking: Ranking, output: Path) -> None:
    from rich.table import Column

    table = plain_table(
        Column("rank", justify="right"),
        Column("teacher", overflow="fold"),
        *(
            Column(name, justify="right")
            for name in ("parameters", "cross-entropy", "accuracy", ranking.score_name)
        ),
        title="teachers, the first to learn from on top",
    )
    for row in ranking.rows():
        table.add_row(
            str(row["rank"]),
            row["name"],
            f"{row['parameters']:,}",
            f"{row['cross_entropy']:.4f}",
            f"{row['accuracy']:.2%}",
            f"{row['score']:.4g}",
        )
    stdout().print(table)
    stdout().print(ranking.note, style="dim", highlight=False, soft_wrap=True)
    stdout().print(f"drawn: {output / 'teachers.png'}", highlight=False, soft_wrap=True)
