"""The command line: ``signbit VERB``. Each verb is a thin file that calls the library.

Nothing here imports PyTorch when it is imported: verbs that need it do so when they run, so that
``signbit run``, ``bench`` and ``doctor`` work without it.
"""

from signbit.cli.app import app, main

__all__ = ["app", "main"]
