"""Names to classes, for stored forms, cells, methods and importers."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from terselm.errors import UsageError

T = TypeVar("T")

NAME = re.compile(r"[a-z][a-z0-9_]*")


class Registry(Generic[T]):
    """The classes of one sort, by name.

    Parameters
    ----------
    sort : str
        What the names stand for, as error messages call it ("method", "cell").
    package : str
        The package whose modules register themselves when imported. They are imported
        on the first look-up, so that adding a class means adding a file.
    """

    def __init__(self, sort: str, package: str) -> None:
        self.sort = sort
        self._package = package
        self._classes: dict[str, T] = {}
        self._complete = False
        self._importing = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a class under `name`.

        Raises
        ------
        ValueError
            If the name is taken or is not lower-case words joined by underscores.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{self.sort} name {name!r} is not lower_case_with_underscores")

        def add(cls: T) -> T:
            if name in self._classes:
                raise ValueError(f"{self.sort} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    def get(self, name: str) -> T:
        """Return the class filed under `name`.

        Raises
        ------
        UsageError
            If there is none; the message names the nearest one.
        """
        self._import_all()
        try:
            return self._classes[name]
        except KeyError:
            raise UsageError(f"unknown {self.sort} {name!r}; {suggest(name, self)}") from None

    def __iter__(self) -> Iterator[str]:
        self._import_all()
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        self._import_all()
        return name in self._classes

    def _import_all(self) -> None:
        if self._complete or self._importing:  # a module may look something up as it is imported
            return
        self._importing = True
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        finally:
            self._importing = False
        self._complete = True  # not after a failing import: the next look-up must say so again


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a clause for an error message: the nearest known word, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(known)
