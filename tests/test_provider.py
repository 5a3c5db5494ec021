"""Where providers come from: the relay itself, a folder of one's own, a package."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from shutil import copy

import pytest

import providers
from relay import provider
from relay.errors import RelayError

OWN = Path(providers.__path__[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the relay looks into."""
    monkeypatch.setattr(provider, "_folders", [])
    provider.add_folder(tmp_path)
    yield tmp_path
    provider._import_file.cache_clear()


def test_a_module_in_the_folder_is_a_provider(folder: Path) -> None:
    copy(OWN / "kofi.py", folder / "tipjar.py")
    (folder / "_helper.py").write_text("raise RuntimeError")
    assert "tipjar" in provider.names()
    assert "_helper" not in provider.names()
    found = provider.load("tipjar")
    assert (found.name, found.title) == ("tipjar", "Ko-fi")
    assert set(found.events) == set(provider.load("kofi").events)


def test_the_relays_own_provider_outdoes_one_of_the_same_name(folder: Path) -> None:
    (folder / "kofi.py").write_text("raise RuntimeError")
    assert provider.load("kofi").title == "Ko-fi"


@pytest.mark.parametrize("text", ["raise RuntimeError('no')", "def (", "import nothing_like_it"])
def test_a_module_that_cannot_be_imported_says_why(folder: Path, text: str) -> None:
    (folder / "tipjar.py").write_text(text)
    with pytest.raises(RelayError, match="the provider 'tipjar' cannot be imported: ") as caught:
        provider.load("tipjar")
    assert caught.value.reason == "broken_provider"


def test_a_module_that_lacks_something_says_what(folder: Path) -> None:
    (folder / "tipjar.py").write_text("TITLE = 'Tip jar'\nEVENTS = {}\n")
    with pytest.raises(RelayError, match="lacks DOCS, SETUP, SIGNATURE, parse"):
        provider.load("tipjar")


def test_a_package_brings_providers_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    brought = metadata.EntryPoint("tipjar", "providers.kofi", provider.ENTRY_POINTS)

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        return [brought] if group == provider.ENTRY_POINTS else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert "tipjar" in provider.names()
    assert provider.load("tipjar").title == "Ko-fi"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RelayError, match="did you mean razorpay"):
        provider.load("razorpya")
