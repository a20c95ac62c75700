"""Files of a data set, in a folder or in an uncompressed ``.tar``, read in place."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from signbit.errors import DataError


@dataclass(frozen=True)
class DataFile:
    """One file of a data set; as a string, what an error calls it.

    Attributes:
        name: its path below the data set's root, with slashes.
        path: the file itself, or the archive that holds it.
        offset, size: where its bytes lie within ``path``.
        archived: whether ``path`` is an archive.
    """

    name: str
    path: Path
    offset: int
    size: int
    archived: bool

    def read(self) -> bytes:
        """All bytes.

        Raises:
            DataError: the file is gone, unreadable or cut off.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"{self}: not readable ({error})") from error
        if len(data) != self.size:
            raise DataError(f"{self}: cut off after {len(data)} of {self.size} bytes")
        return data

    @property
    def identity(self) -> str:
        """A text that is another one where the bytes may be others."""
        return f"{self.path.resolve()} {self.path.stat().st_mtime_ns} {self.offset} {self.size}"

    def __str__(self) -> str:
        return f"{self.path}: {self.name}" if self.archived else str(self.path)


def list_files(root: Path) -> list[DataFile]:
    """All files below a folder or within a ``.tar``, by name; hidden ones left out.

    Raises:
        DataError: nothing there, or an archive that is none, compressed or damaged.
    """
    if root.is_dir():
        found = [
            DataFile(file.relative_to(root).as_posix(), file, 0, file.stat().st_size, False)
            for file in root.rglob("*")
            if file.is_file()
        ]
    elif root.exists():
        found = _members(root)
    else:
        raise DataError(f"{root}: no such file or folder")
    shown = [f for f in found if not any(part.startswith(".") for part in f.name.split("/"))]
    return sorted(shown, key=lambda file: file.name)


def _members(archive: Path) -> list[DataFile]:
    try:
        with tarfile.open(archive, "r:") as tar:
            return [
                DataFile(m.name.removeprefix("./"), archive, m.offset_data, m.size, True)
                for m in tar.getmembers()
                if m.isreg()
            ]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive}: not a readable, uncompressed .tar ({error})") from error
