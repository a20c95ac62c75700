"""A run that is killed for real and resumed ends with the very weights of one that was not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from signbit.training import load_trained

from .killable import RECIPE, tiny_network

EPOCHS = sum(stage["epochs"] for stage in RECIPE["stages"])
SCRIPT = Path(__file__).with_name("killable.py")


def start(output, mode="start", pause_ms=0):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(output), mode, str(pause_ms)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.strip().splitlines()[-1]


def rows(folder):
    """Rows of metrics.csv without the times."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def kill_after_epochs(process, folder, epochs):
    """SIGKILL once ``epochs`` are in the checkpoint and the next one has begun."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (folder / "metrics.csv").exists() and len(rows(folder)) >= epochs:
            checkpoint = folder / "checkpoints" / "last.ckpt"
            if checkpoint.exists() and _epoch(checkpoint) >= epochs:
                os.kill(process.pid, signal.SIGKILL)
                assert _epoch(checkpoint) < EPOCHS, "killed too late to prove anything"
                process.communicate()
                assert process.returncode == -signal.SIGKILL
                return
        time.sleep(0.01)
    raise AssertionError("the run never got that far")


def _epoch(checkpoint):
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return content["epoch"] + 1


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(start(folder))


# Within the first stage, at the border of the stages, within the second.
def test_resume_after_sigkill_equals_an_uninterrupted_run(tmp_path, uninterrupted):
    whole, expected = uninterrupted
    process = start(tmp_path, pause_ms=1000)
    for epochs in (1, 3, 5):
        kill_after_epochs(process, tmp_path, epochs)
        assert not (tmp_path / "model.pt").exists()
        process = start(tmp_path, "resume", 0 if epochs == 5 else 1000)
    assert finish(process) == expected
    assert rows(tmp_path) == rows(whole)
    assert [row["epoch"] for row in rows(tmp_path)] == [str(i) for i in range(1, EPOCHS + 1)]

    def state(folder):
        return load_trained(folder, build=lambda spec: tiny_network()).model.state_dict()

    ours, theirs = state(tmp_path), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_metrics_are_those_of_the_saved_model(uninterrupted):
    folder, sha = uninterrupted
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["weights_sha256"] == sha
    from signbit.data import load_source
    from signbit.tasks.classification import evaluate

    trained = load_trained(folder, build=lambda spec: tiny_network())
    source = load_source("digits").limited(400)
    again = evaluate(trained.model, source.test, trained.mean, trained.std)
    assert again.accuracy == metrics["test_accuracy"]
