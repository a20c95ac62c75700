"""The errors that signbit raises on purpose.

Each names the layer, file or field at fault and the way out; anything else that escapes is a bug.
This module imports nothing, so that every other one can use it.
"""


class SignbitError(Exception):
    """Base class of every error that signbit raises on purpose."""


class CompileError(SignbitError):
    """A model cannot be compiled; the message names the layer's path and what to use instead."""


class BinarizeError(SignbitError):
    """A network cannot be made binary; the message names the layers and what to use instead."""


class VerifyError(SignbitError):
    """The engine disagrees with the compiled graph, or the graph with the model it came from."""


class FormatError(SignbitError):
    """A `.signbit` file is truncated, damaged or not such a file; the message names the field."""


class SessionError(SignbitError):
    """A session cannot be opened or run: wrong shape or dtype, a missing instruction set."""


class DataError(SignbitError):
    """A data set's file is missing or broken; the message names the file."""


class CheckpointError(SignbitError):
    """A published checkpoint cannot be imported; the message names its file and the tensor."""


class RecipeError(SignbitError):
    """A recipe has an unknown key or a value out of range; the message gives the dotted path."""
