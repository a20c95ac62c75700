"""The example of docs/own-networks.md runs as it stands there, and shows what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "own-networks.md"


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    assert names["accuracy"] > 0.9
    printed = capsys.readouterr().out
    shown = re.findall(r"```\n(reactnet.*?)```", text, flags=re.S)[0]
    assert shown in printed
    assert "> relu#3 " in printed
    assert "first difference: relu#3, image" in printed
