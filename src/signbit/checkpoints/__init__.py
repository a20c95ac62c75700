"""Published checkpoints: the weights that authors have released, read into our networks."""

from signbit.checkpoints.family import Family, Published
from signbit.checkpoints.importing import (
    Imported,
    import_checkpoint,
    published_state_dict,
    published_tensors,
)

__all__ = [
    "Family",
    "Imported",
    "Published",
    "import_checkpoint",
    "published_state_dict",
    "published_tensors",
]
