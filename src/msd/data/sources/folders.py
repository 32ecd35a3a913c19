"""A folder or zip that holds a folder for every class, perhaps below train/, test/ and val/."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from msd.data.decode import Damaged
from msd.data.sources.source import SPLIT_NAMES, Entry, Key, Source, normal, shown
from msd.data.sources.tree import Tree

IMAGES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
UNSUPPORTED = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".ico", ".tga", ".pgm", ".ppm")
"""Images that are not read: to leave them out in silence would lose them."""


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image, of a format that is read or not."""
    return name.lower().endswith((*IMAGES, *UNSUPPORTED))


def unsupported(name: str) -> Damaged | None:
    if not name.lower().endswith(UNSUPPORTED):
        return None
    return Damaged(f"{name.rpartition('.')[2].lower()} is not read, make it a PNG")


class ClassFolders(Source):
    """Every folder is a class, its images lie in it at any depth; other files are ignored."""

    layout = "class folders"

    def __init__(self, tree: Tree):
        super().__init__(tree.path)
        self._tree = tree

    @classmethod
    def found(cls, tree: Tree) -> ClassFolders | None:
        return cls(tree) if tree.folders() else None

    def key(self) -> Key:
        return self._tree.key()

    @cached_property
    def _tops(self) -> list[str]:
        return self._tree.folders()

    def splits(self) -> tuple[str, ...]:
        """The folders at the top, if all are named like parts and hold folders themselves."""
        tops = self._tops
        named = all(top.lower() in SPLIT_NAMES for top in tops)
        return tuple(tops) if named and all(self._tree.folders(f"{top}/") for top in tops) else ()

    def names(self) -> tuple[str, ...]:
        """Of all parts, so that a class has one number in each of them."""
        within = [f"{split}/" for split in self.splits()] or [""]
        return tuple({normal(name): None for place in within for name in self._tree.folders(place)})

    def entries(self, split: str | None) -> Iterator[Entry]:
        depth = 1 if self.splits() else 0
        self.num_ignored = 0
        for file in self._tree.files():
            pieces = file.name.split("/")
            if split is not None and pieces[0] != split:
                continue
            if len(pieces) < depth + 2 or not is_image(file.name):
                self.num_ignored += 1
                continue
            content = unsupported(file.name) or self._tree.content(file.name)
            yield Entry(shown(file.name), normal(pieces[depth]), content, pieces[0] if depth else "")
