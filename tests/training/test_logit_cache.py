"""Logits of teachers on disk: what is trusted, what is refused, and that runs are the same."""

import errno
import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from signbit.data import load_source
from signbit.errors import RecipeError, SignbitError
from signbit.nn import BinaryLinear, Sign
from signbit.training import parse_recipe, train
from signbit.training.logit_cache import HEADER, LogitCache, _checksum
from signbit.training.run import make_loader

from .killable import RECIPE, tiny_network

SOURCE = load_source("digits").limited(150)
SETTINGS = {"teacher": {"weights_sha256": "a"}, "views": {"seed": 1}}


def quiet():
    return Console(quiet=True)


def cache(folder, settings=SETTINGS, **changes):
    arguments = {"images": 5, "classes": 3, "epochs": 2, **changes}
    return LogitCache(folder / "x.logits", settings, **arguments)


def logits(epoch, indices):
    """What a teacher would say: other numbers for every view."""
    indices = torch.as_tensor(indices)[:, None]
    return epoch * 100 + indices * 10 + torch.arange(3) / 7


def fetch(cache, epoch, indices):
    """What comes back, and whether the teacher was asked."""
    asked = []

    def compute():
        asked.append(1)
        return logits(epoch, indices)

    return cache.fetch(epoch, np.array(indices), compute), bool(asked)


def test_a_view_is_computed_once(tmp_path):
    first = cache(tmp_path)
    for epoch, indices in ((0, [3, 1]), (1, [1, 4]), (1, [0, 3])):
        found, asked = fetch(first, epoch, indices)
        assert asked
        assert torch.equal(found, logits(epoch, indices))
    for other in (first, cache(tmp_path)):
        found, asked = fetch(other, 1, [3, 0, 4, 1])
        assert not asked
        assert torch.equal(found, logits(1, [3, 0, 4, 1]))
    assert fetch(first, 0, [3, 0])[1]  # one of them is missing


def test_rows_that_are_there_stay(tmp_path):
    file = cache(tmp_path)
    fetch(file, 0, [1])
    found = file.fetch(0, np.array([1, 2]), lambda: torch.zeros(2, 3))
    assert torch.equal(found, torch.cat([logits(0, [1]), torch.zeros(1, 3)]))


def test_views_that_never_change_have_one_row(tmp_path):
    file = cache(tmp_path, epochs=None)
    fetch(file, 0, [0, 1, 2, 3, 4])
    found, asked = fetch(file, 7, [2, 0])
    assert not asked
    assert torch.equal(found, logits(0, [2, 0]))
    assert file.path.stat().st_size == HEADER + 5 * 16


def test_a_longer_run_goes_on_with_the_file(tmp_path):
    fetch(cache(tmp_path), 1, [4])
    longer = cache(tmp_path, epochs=6)
    assert not fetch(longer, 1, [4])[1]
    assert fetch(longer, 5, [4])[1]
    assert not fetch(cache(tmp_path), 1, [4])[1]  # and so does a shorter one
    assert not fetch(cache(tmp_path, epochs=6), 5, [4])[1]


@pytest.mark.parametrize("byte", range(16))
def test_a_damaged_row_is_computed_again(tmp_path, byte):
    file = cache(tmp_path)
    fetch(file, 0, [0, 1, 2])
    content = bytearray(file.path.read_bytes())
    content[HEADER + 16 + byte] ^= 0x40
    file.path.write_bytes(content)
    file = cache(tmp_path)
    assert not fetch(file, 0, [0, 2])[1]
    found, asked = fetch(file, 0, [1])
    assert asked
    assert torch.equal(found, logits(0, [1]))
    assert not fetch(cache(tmp_path), 0, [1])[1]


@pytest.mark.parametrize("length", range(1, 16))
def test_a_row_that_was_being_written_is_no_row(tmp_path, length):
    file = cache(tmp_path)
    fetch(file, 0, [1])
    content = bytearray(file.path.read_bytes())
    content[HEADER + 16 + length : HEADER + 32] = bytes(16 - length)
    file.path.write_bytes(content)
    assert fetch(cache(tmp_path), 0, [1])[1]


def test_a_row_in_another_place_is_no_row(tmp_path):
    file = cache(tmp_path)
    fetch(file, 0, [0])
    content = bytearray(file.path.read_bytes())
    content[HEADER + 16 : HEADER + 32] = content[HEADER : HEADER + 16]
    file.path.write_bytes(content)
    assert fetch(cache(tmp_path), 0, [1])[1]


def test_a_hole_is_no_row_wherever_it_is(tmp_path):
    """From one row number in 2**32 the CRC-32 of zeros is 0: that is no checksum either."""
    zeros = np.zeros(1, np.float32)
    # CRC-32 is linear over bits, so the start from which 4 zero bytes give 0 can be solved for.
    base = zlib.crc32(bytes(4), 0)
    columns = [zlib.crc32(bytes(4), 1 << bit) ^ base for bit in range(32)]
    start = solve(columns, base)
    assert zlib.crc32(bytes(4), start) == 0
    assert _checksum(zeros, start) != 0


def solve(columns, target):
    """Bits of x with the sum of columns[i] over its bits (modulo 2) equal to target."""
    basis = {}
    for index, column in enumerate(columns):
        value, mask = column, 1 << index
        while value:
            top = value.bit_length() - 1
            if top not in basis:
                basis[top] = value, mask
                break
            value, mask = value ^ basis[top][0], mask ^ basis[top][1]
    solution = 0
    while target:
        value, mask = basis[target.bit_length() - 1]
        target, solution = target ^ value, solution ^ mask
    return solution


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"teacher": {"weights_sha256": "b"}}, {}, r"teacher\.weights_sha256 was 'a', now 'b'"),
        ({"views": {"seed": 2}}, {}, r"views\.seed was 1, now 2"),
        ({"views": "not augmented"}, {}, r"views was {'seed': 1}, now 'not augmented'"),
        ({}, {"dtype": "float16"}, r"rows\.dtype was 'float32', now 'float16'"),
        ({}, {"images": 6}, r"rows\.images was 5, now 6"),
        ({}, {"classes": 4}, r"rows\.classes was 3, now 4"),
    ],
)
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, settings, changes, message):
    fetch(cache(tmp_path), 0, [1])
    before = (tmp_path / "x.logits").read_bytes()
    with pytest.raises(
        SignbitError, match=rf"x\.logits holds .*{message}.*choose another loss\.ca"
    ):
        cache(tmp_path, SETTINGS | settings, **changes)
    assert (tmp_path / "x.logits").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "other"}'.ljust(HEADER), b"[]" * 4000])
def test_what_is_no_cache_is_refused(tmp_path, content):
    (tmp_path / "x.logits").write_bytes(content)
    with pytest.raises(SignbitError, match=r"x\.logits: damaged, or no cache of logits; delete it"):
        cache(tmp_path)
    assert (tmp_path / "x.logits").read_bytes() == content


def test_a_disk_without_room_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(SignbitError, match=r"take 16\.00 GB, the disk has 0\.00 left: .*float16"):
        cache(tmp_path, images=10**9, epochs=None)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_named(tmp_path, monkeypatch):
    file = cache(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SignbitError, match=r"x\.logits: cannot be written \(No space left .*--res"):
        fetch(file, 0, [1])


def test_halves_are_what_is_used_from_the_first(tmp_path):
    file = cache(tmp_path, dtype="float16")
    first, again = fetch(file, 1, [4])[0], fetch(file, 1, [4])[0]
    assert first.dtype == again.dtype == torch.float16
    assert torch.equal(first, again)
    assert torch.equal(first, logits(1, [4]).half())


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, "float32"), (1e5, "float16")])
def test_logits_that_are_no_numbers_are_refused(tmp_path, value, dtype):
    file = cache(tmp_path, dtype=dtype)
    with pytest.raises(SignbitError, match=rf"logits are not finite in {dtype}"):
        file.fetch(0, np.array([1]), lambda: torch.full((1, 3), value))
    assert fetch(file, 0, [1])[1]


# --- in runs ---


class Counting(nn.Module):
    """A teacher of random weights that counts the batches it sees."""

    def __init__(self, seed=3):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.calls = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, images):
        self.calls.append(len(images))
        return self.layers(images)


def recipe(folder, augment=True, **loss):
    tree = {**RECIPE, "weights": "last"}
    tree["data"] = {**RECIPE["data"]} if augment else {"name": "digits", "batch_size": 64}
    loss = {"teachers": [{"name": "strong"}], "cache": str(folder), **loss}
    tree["stages"] = [
        {"name": "first", "epochs": 1, "binary_weights": False},
        {"name": "second", "epochs": 2, "loss": loss},
    ]
    return parse_recipe(tree)


def run(recipe, output, teacher=None, model=None, **arguments):
    return train(
        recipe,
        SOURCE,
        output,
        model=model or tiny_network(),
        teachers={"strong": teacher or Counting()},
        console=quiet(),
        **arguments,
    )


@pytest.mark.parametrize("augment", [True, False])
def test_runs_with_a_cache_are_those_without(tmp_path, augment):
    weights = []
    calls = []
    for name, cached in (("a", False), ("b", tmp_path / "cache"), ("c", tmp_path / "cache")):
        teacher = Counting()
        made = recipe(tmp_path, augment, cache=cached if cached is False else str(cached))
        weights.append(run(made, tmp_path / name, teacher).metrics["weights_sha256"])
        calls.append(teacher.calls[1:])  # after the empty image that tries it
    assert len(set(weights)) == 1
    assert calls[0] == [64] * 4  # two epochs
    assert calls[2] == []
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [
        "strong.seed5.logits" if augment else "strong.logits"
    ]


def test_rows_are_the_logits_of_the_views(tmp_path):
    made = recipe(tmp_path / "cache")
    teacher = Counting()
    run(made, tmp_path / "out", teacher)
    (path,) = (tmp_path / "cache").iterdir()
    rows = np.fromfile(path, np.dtype([("logits", "<f4", 10), ("check", "<u4")]), offset=HEADER)
    assert len(rows) == 3 * len(SOURCE.train)
    loader = make_loader(made, SOURCE, "train", training=True)
    seen = np.zeros(len(rows), bool)
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        for step, (images, _) in enumerate(loader):
            numbers = epoch * len(SOURCE.train) + loader.indices(epoch, step)
            with torch.no_grad():
                expected = teacher(images).numpy()
            np.testing.assert_allclose(rows["logits"][numbers], expected, rtol=1e-6)
            seen[numbers] = True
    assert not rows["check"][~seen].any()
    header = json.loads(path.read_bytes()[:HEADER])
    assert header["views"]["batch_size"] == 64


def test_another_student_and_a_resumed_run_use_it(tmp_path):
    made = recipe(tmp_path / "cache")
    run(made, tmp_path / "a")
    other = nn.Sequential(nn.Flatten(), Sign(), BinaryLinear(64, 10))
    teacher = Counting()
    run(made, tmp_path / "b", teacher, other)
    run(made, tmp_path / "a", teacher, resume=True)
    assert teacher.calls == [1, 1]  # the empty image, twice


def test_a_run_of_other_views_or_another_teacher_is_refused_before_it_starts(tmp_path):
    run(recipe(tmp_path / "cache"), tmp_path / "a")
    tree = recipe(tmp_path / "cache").model_dump()
    tree["data"]["augment"]["flip"] = False
    with pytest.raises(SignbitError, match=r"views\.augment\.flip was True, now False"):
        run(parse_recipe(tree), tmp_path / "b")
    with pytest.raises(
        SignbitError, match=r"teacher\.weights_sha256 was .*now .*Delete it, or cho"
    ):
        run(recipe(tmp_path / "cache"), tmp_path / "b", Counting(seed=4))
    tree = recipe(tmp_path / "cache").model_dump()
    with pytest.raises(SignbitError, match=r"images\.sha256 was .*rows\.images was 150, now 140"):
        train(
            parse_recipe(tree),
            load_source("digits").limited(140),
            tmp_path / "b",
            model=tiny_network(),
            teachers={"strong": Counting()},
            console=quiet(),
        )
    assert not (tmp_path / "b" / "recipe.resolved.yaml").exists()
    run(parse_recipe({**tree, "seed": 6}), tmp_path / "b")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_teachers_of_one_name_have_files_of_their_own(tmp_path):
    loss = {
        "teachers": [{"name": "net"}, {"name": "net", "input_size": 16}],
        "cache": True,
    }
    tree = recipe(tmp_path).model_dump()
    tree["stages"] = [{"name": "only", "epochs": 1, "loss": loss}]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 10))
    train(
        parse_recipe(tree),
        SOURCE,
        tmp_path / "out",
        model=tiny_network(),
        teachers={"net": pool},
        console=quiet(),
    )
    names = {path.name for path in (tmp_path / "out" / "teacher-logits").iterdir()}
    assert names == {"net.seed5.logits", "net-2.seed5.logits"}


def test_stages_share_a_teachers_file(tmp_path):
    loss = {"teacher": {"name": "strong"}, "cache": str(tmp_path / "cache")}
    tree = recipe(tmp_path, augment=False).model_dump()
    tree["stages"] = [
        {"name": "first", "epochs": 1, "loss": loss},
        {"name": "second", "epochs": 1, "loss": {**loss, "label_weight": 1}},
    ]
    teacher = Counting()
    run(parse_recipe(tree), tmp_path / "out", teacher)
    assert len(teacher.calls) <= 1 + 4
    (path,) = (tmp_path / "cache").iterdir()
    assert path.name == "strong.logits"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"cache": True}, "cache is of distillation: there are no teachers"),
        ({"teacher": {"timm": "a"}, "cache_dtype": "float16"}, "cache_dtype is of cache"),
        ({"teacher": {"timm": "a"}, "cache": ""}, "loss.cache"),
    ],
)
def test_caches_of_nothing_are_refused(loss, message):
    tree = {**RECIPE, "stages": [{"name": "only", "epochs": 1, "loss": loss}]}
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tree)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SignbitError, match=r"file: a file of that name is in the way"):
        run(recipe(tmp_path / "file"), tmp_path / "out")
