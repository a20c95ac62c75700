"""What a network is trained for: data, loss, scores and evaluation, one file a task.

>>> get_task("classification").metric
'accuracy'
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signbit.tasks.base import Task

# name -> where its class is; loaded when it is first asked for
_TASKS = {
    "classification": "signbit.tasks.classification:Classification",
    "detection": "signbit.tasks.detection:Detection",
    "segmentation": "signbit.tasks.segmentation:Segmentation",
    "superresolution": "signbit.tasks.superresolution:SuperResolution",
    "matching": "signbit.tasks.matching:Matching",
}
TASKS = tuple(_TASKS)

__all__ = ["TASKS", "get_task"]


def get_task(name: str) -> "Task":
    """The task of that name.

    Raises:
        KeyError: there is none.
    """
    module, _, cls = _TASKS[name].partition(":")
    return getattr(import_module(module), cls)()
