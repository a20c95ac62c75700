"""A run's processes, one a device: rank 0 is the caller's own, the others are started here.

The others are fresh interpreters (``spawn``) that get the run's parts pickled and meet rank 0 over
the loopback interface, in Lightning's DDP. What happens to one happens to all: an error anywhere
ends the run with that error, and no process is left behind. On GPUs, where a process may wait for
one that is gone until NCCL's timeout, that can take as long.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment

from signbit.errors import SignbitError

_GRACE = 5.0  # seconds for the others to say what happened, or to end


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is: ``rank`` of ``ranks``; rank 0 listens at ``port``."""

    rank: int = 0
    ranks: int = 1
    port: int = 0


class LocalEnvironment(ClusterEnvironment):
    """Tells Lightning the place of this process, which was started already, on one machine."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self.place.port

    @staticmethod
    def detect() -> bool:
        return False  # it is given, never found

    def world_size(self) -> int:
        return self.place.ranks

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.place.rank

    def node_rank(self) -> int:
        return 0


Work = Callable[[Any, Place, Callable[[], None]], None]


@contextmanager
def processes(ranks: int, work: Work, job: Any) -> Iterator[Place]:
    """Within the context the others work; gives the place of the caller's process, rank 0.

    Args:
        ranks: how many processes there are; with 1 none is started.
        work: a function of a module, called in the others with the job, their place, and a function
            to call when they are about to meet rank 0.
        job: pickled.

    Raises:
        SignbitError: the job cannot be pickled, or what another process raised.
        RuntimeError: another process failed in a way that is not the user's.
    """
    if ranks == 1:
        yield Place()
        return
    payload = _pickled(job)
    others = _Others(ranks)
    try:
        others.start(work, payload)
        yield Place(0, ranks, others.port)
    except SignbitError:
        raise
    except Exception as error:
        # Rank 0 lost another process, or failed by itself.
        others.raise_theirs(error)
        raise
    else:
        others.join()
    finally:
        others.end()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _pickled(job: Any) -> bytes:
    """By plain pickle: multiprocessing's own would share the memory of the weights."""
    try:
        return pickle.dumps(job)
    except Exception as error:  # whatever the parts of a user's network raise
        raise SignbitError(
            f"devices: the network or a teacher cannot be sent to another process ({error}): "
            "define its classes and functions at the top of a module, or train with devices: 1"
        ) from error


class _Others:
    """The processes of the ranks from 1."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._running: list[tuple[BaseProcess, Connection]] = []

    def start(self, work: Work, payload: bytes) -> None:
        """Start them, and wait until all are ready: from there on they fail only together."""
        context = multiprocessing.get_context("spawn")
        for rank in range(1, self.ranks):
            ours, theirs = context.Pipe()
            place = Place(rank, self.ranks, self.port)
            process = context.Process(target=_run, args=(theirs, work, payload, place), daemon=True)
            process.start()
            theirs.close()
            self._running.append((process, ours))
        for _, connection in self._running:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        """Take a process's next word; raises the error that it may be."""
        try:
            word = connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("another process of the run was killed") from error
        if isinstance(word, SignbitError):
            raise word
        if word is not None:
            raise RuntimeError(f"another process of the run failed:\n{word}")

    def raise_theirs(self, cause: Exception) -> None:
        """Raise the error that ended another process, if one did."""
        for connection in wait([connection for _, connection in self._running], _GRACE):
            assert isinstance(connection, Connection)
            try:
                self._receive(connection)
            except (SignbitError, RuntimeError) as error:
                raise error from cause

    def join(self) -> None:
        """Wait until they have ended as they should."""
        for process, connection in self._running:
            self._receive(connection)
            process.join(_GRACE)

    def end(self) -> None:
        for process, connection in self._running:
            if process.is_alive():
                process.kill()
            process.join()
            connection.close()


def _run(connection: Connection, work: Work, payload: bytes, place: Place) -> None:
    """What another process does: says None when it is ready and when it is done, or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears Ctrl-C, and ends the others
    try:
        work(pickle.loads(payload), place, lambda: connection.send(None))
        connection.send(None)
    except SignbitError as error:
        connection.send(error)
        raise SystemExit(1) from None
    except Exception:
        connection.send(traceback.format_exc())
        raise SystemExit(1) from None
