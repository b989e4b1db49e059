"""Names to classes."""

from __future__ import annotations

import sys

import pytest

from terselm.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "package_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_an_import_that_fails_is_told_every_time(package):
    (package / "broken.py").write_text("import a_module_that_is_not_there\n")
    registry = Registry("thing", package.name)
    for _ in range(2):
        with pytest.raises(ImportError, match="a_module_that_is_not_there"):
            registry.get("anything")


def test_a_module_may_look_names_up_while_it_is_imported(package):
    (package / "one.py").write_text(
        "import package_of_a_test as home\n"
        "assert 'one' not in home.registry\n"
        "home.registry.register('one')(int)\n"
    )
    registry = Registry("thing", package.name)
    import package_of_a_test as home

    home.registry = registry
    assert list(registry) == ["one"] and registry.get("one") is int
