import importlib.util
import sys

import pytest

from servery_runner import __main__ as warm_parent_program


@pytest.mark.parametrize("module", warm_parent_program.LATE_MODULES)
def test_every_late_module_is_one_of_the_package_as_it_is_installed_here(module: str):
    # A release that renames one would make each first prediction slower, and nothing else would show it.
    assert importlib.util.find_spec(module) is not None


def test_only_modules_of_packages_that_are_there_are_imported_and_broken_ones_are_left(
    monkeypatch: pytest.MonkeyPatch,
):
    modules = ("json.tool", "json.no_such_module", "antigravity")
    monkeypatch.setattr(warm_parent_program, "LATE_MODULES", modules)
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    warm_parent_program.import_late_modules()
    assert [module for module in modules if module in sys.modules] == ["json.tool"]
