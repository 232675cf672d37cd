"""Imports at the start of a command: libraries load much that nothing here makes use of."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # that module loads twenty others

_BLAS = "OPENBLAS_NUM_THREADS"
# Those that PyArrow and Luigi load where they are there.
_UNWANTED = {"pandas", "pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "tornado"}
# Luigi does as well without; those who send news load it when they need it.
_LATER = {"requests"}


class _MaskedArray:
    """There is none: nothing here makes them."""


def _is_masked(array: object) -> bool:
    return False


# Modules that put documentation together for every function, name types of arrays, look through all
# that is installed for plugins, or are for arrays that nobody has: a sixth of the start. This is
# what is asked of them.
_HOLLOW: dict[str, dict[str, object]] = {
    "numpy._core._add_newdocs": {},
    "numpy._core._add_newdocs_scalars": {},
    "numpy.ma": {"MaskedArray": _MaskedArray, "is_masked": _is_masked},
    "numpy._typing": {"NDArray": list},
    "pydantic.plugin._loader": {"get_plugins": tuple},
    "pyarrow.vendored.docscrape": {"NumpyDocString": lambda text: {"Parameters": ()}},
}


class _Hollow(Loader):
    """Gives a module with nothing in it but what is asked for; for anything else, the true one."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module that is about to be imported."""
        own = module.__name__

        def of_the_true_one(name: str) -> object:
            if name.startswith("__"):  # the import system looks for these
                raise AttributeError(name)
            if sys.modules.get(own) is module:
                del _HOLLOW[own], sys.modules[own]
            return getattr(importlib.import_module(own), name)

        module.__dict__.update(_HOLLOW[own], __getattr__=of_the_true_one)


class _Sparing:
    """Refuses modules that nobody needs, and hollows others out."""

    def __init__(self) -> None:
        self.refused = _UNWANTED | _LATER

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module in place of those that would; None where they are to do it."""
        if fullname in self.refused:
            raise ModuleNotFoundError(fullname)
        return ModuleSpec(fullname, _Hollow()) if fullname in _HOLLOW else None


@contextlib.contextmanager
def sparingly() -> Iterator[None]:
    """Import what a command needs within the block, and spare what it does not, then and later."""
    finder = _Sparing()
    sys.meta_path.insert(0, finder)
    gc.disable()  # what modules make stays: looking for garbage in it takes a tenth of the start
    with _without_threads_of_blas():
        yield
    finder.refused = _UNWANTED
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def _without_threads_of_blas() -> Iterator[None]:
    """Have NumPy start none of its threads for matrices, which wait for work at full speed.

    Commands of the user, which run later, get the environment as it was.
    """
    if _BLAS in os.environ:
        yield
        return
    os.environ[_BLAS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS]
