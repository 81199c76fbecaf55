"""Where root puts the database: real directories, and the real user it runs as."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servery_local.errors import ComponentFailed
from servery_local.postgres_place import Place, prepare_place

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")


class Home:
    """A data directory that can be opened and closed from above."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open()
        self.data = root / "servery" / "postgres"
        self.data.parent.mkdir(mode=0o711)
        self.shared = root.with_name(f"{root.name}-shared")

    def open(self) -> None:
        self.root.chmod(0o711)

    def close(self) -> None:
        self.root.chmod(0o700)

    def prepare(self) -> Place:
        return prepare_place(self.data, self.data.parent / "sockets", "stack", self.shared)


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="servery-test-") as root:
        Path(root).chmod(0o711)
        inside = Path(root) / "home"
        inside.mkdir()
        yield Home(inside)


def make_cluster(place: Place) -> None:
    place.cluster.mkdir()
    (place.cluster / "PG_VERSION").write_text("18\n")


def test_a_database_that_can_be_entered_lies_in_the_data_directory(home: Home) -> None:
    place = home.prepare()
    assert place.data == home.data
    assert place.user is not None
    assert place.data.stat().st_uid == place.sockets.stat().st_uid == place.user.uid != 0
    make_cluster(place)
    home.prepare()
    assert not (home.shared / "stack").exists()


def test_below_a_closed_directory_it_lies_elsewhere_and_stays_there(home: Home) -> None:
    home.close()
    place = home.prepare()
    assert place.data == home.shared / "stack" / "postgres"
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700, "what Servery did not make is left alone"
    make_cluster(place)
    home.open()
    assert home.prepare().data == place.data


def test_a_cluster_that_was_shut_in_is_not_replaced_by_an_empty_one(home: Home) -> None:
    make_cluster(home.prepare())
    home.close()
    with pytest.raises(ComponentFailed, match="may not enter"):
        home.prepare()


def test_binaries_that_others_may_not_run_are_copied_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = home.root / "site" / "package" / "server"
    (server / "bin").mkdir(parents=True, mode=0o700)
    (server / "bin" / "postgres").write_text("#!/bin/sh\n")
    (server / "bin" / "postgres").chmod(0o700)
    monkeypatch.setattr("servery_local.postgres_place.BINARIES", server / "bin")
    home.close()
    copied = home.prepare().binaries
    assert copied.is_relative_to(home.shared)
    assert stat.S_IMODE((copied / "postgres").stat().st_mode) == 0o755
    assert stat.S_IMODE((server / "bin" / "postgres").stat().st_mode) == 0o700
    made = (copied / "postgres").stat().st_ino
    assert (home.prepare().binaries / "postgres").stat().st_ino == made
