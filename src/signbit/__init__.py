"""signbit: binary neural networks, trained in PyTorch, run bit-packed on ordinary CPUs.

```python
import signbit

model = signbit.create_model("bineal18", num_classes=10)   # or any module built from signbit.nn
compiled = signbit.compile(model, example_input)           # checks itself against the model
compiled.save("model.signbit")
session = signbit.load("model.signbit", threads=2)         # needs NumPy only
y = session(x)
```

Names are imported when first used, so that running a compiled file never imports PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from signbit.errors import (
    BinarizeError,
    CheckpointError,
    CompileError,
    DataError,
    FormatError,
    RecipeError,
    SessionError,
    SignbitError,
    VerifyError,
)

if TYPE_CHECKING:
    from signbit.binarization import binarize
    from signbit.calibration import calibrate
    from signbit.checkpoints import import_checkpoint
    from signbit.compiler import CompiledModel, IntegerOptions, compile, diff
    from signbit.compiler.summary import summarize as summary
    from signbit.eight_bit import to_8bit
    from signbit.models import create_model, list_models
    from signbit.runtime import Session, load

__version__ = "0.1.0"

_LAZY = {
    "CompiledModel": ("signbit.compiler", "CompiledModel"),
    "IntegerOptions": ("signbit.compiler", "IntegerOptions"),
    "Session": ("signbit.runtime", "Session"),
    "binarize": ("signbit.binarization", "binarize"),
    "calibrate": ("signbit.calibration", "calibrate"),
    "compile": ("signbit.compiler", "compile"),
    "create_model": ("signbit.models", "create_model"),
    "diff": ("signbit.compiler", "diff"),
    "import_checkpoint": ("signbit.checkpoints", "import_checkpoint"),
    "list_models": ("signbit.models", "list_models"),
    "load": ("signbit.runtime", "load"),
    "summary": ("signbit.compiler.summary", "summarize"),
    "to_8bit": ("signbit.eight_bit", "to_8bit"),
}

__all__ = [
    "BinarizeError",
    "CheckpointError",
    "CompileError",
    "CompiledModel",
    "DataError",
    "FormatError",
    "IntegerOptions",
    "RecipeError",
    "Session",
    "SessionError",
    "SignbitError",
    "VerifyError",
    "binarize",
    "calibrate",
    "compile",
    "create_model",
    "diff",
    "import_checkpoint",
    "list_models",
    "load",
    "summary",
    "to_8bit",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'signbit' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
