"""Scenario 49: a store is one file, whatever the process does after it has named it, and by
whatever name it is opened.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from orchestra.cli.doctor import examine
from orchestra.clock import SystemClock
from orchestra.errors import InvalidArgument, StoreAliased, StoreError, StoreUnavailable
from orchestra.providers.postgres.connection import absolute_files
from orchestra.providers.sqlite import SqliteProvider, back_up, mounts
from orchestra.store.outcomes import Started
from tests.support.contract.shorthand import a_node, a_start, one, read


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in a directory of this test; return it."""
    (tmp_path / "ours").mkdir()
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path / "ours"


def opened(path):
    provider = SqliteProvider(path, durability="relaxed")
    provider.open()
    return closing(provider)


def neighbours(provider):
    return {node.record.node_id for node in provider.store.catalogue().nodes}


# --- it stays the file that was named -------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["app.db", b"app.db", Path("app.db"), "./sub/../app.db", "../ours/app.db"]
)
def test_a_relative_path_names_one_file_whatever_directory_the_process_goes_to(
    here, tmp_path, monkeypatch, path
):
    (here / "sub").mkdir()
    provider = SqliteProvider(path)
    for name in ("empty", "theirs"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "theirs" / "app.db"):
        pass
    monkeypatch.chdir(tmp_path / "empty")
    provider.open()
    with closing(provider):
        assert one(provider, a_start("first")) == Started()
        monkeypatch.chdir(tmp_path / "theirs")
        assert one(provider, a_start("second")) == Started()
        provider.store.join(a_node("n1"))
        assert provider.directory.get("second") is not None, (
            "a reader that is connected only now finds the same file"
        )
        assert not provider.store.vanished()
        provider.store.leave("n1")
    assert os.listdir(tmp_path / "empty") == []
    with opened(tmp_path / "theirs" / "app.db") as theirs:
        assert theirs.directory.get("second") is None
    with opened(here / "app.db") as ours:
        assert read(ours, "first").row.instance_id, read(ours, "second").row.instance_id


def test_a_link_that_leads_elsewhere_later_does_not_move_the_store(tmp_path):
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    provider = SqliteProvider(current / "app.db")
    current.unlink()
    current.symlink_to("two")
    provider.open()
    with closing(provider):
        assert one(provider, a_start("i")) == Started()
    assert (tmp_path / "one" / "app.db").exists()
    assert os.listdir(tmp_path / "two") == []


def test_a_working_directory_that_is_gone_is_named_and_does_not_matter_to_absolute_paths(
    tmp_path, monkeypatch
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreUnavailable, match="working directory"):
        SqliteProvider("app.db")
    with opened(tmp_path / "app.db") as provider:
        assert one(provider, a_start("i")) == Started()


# --- by whatever name -----------------------------------------------------------------------------


def test_all_names_of_a_store_share_its_locks_its_nodes_and_its_instances(
    here, tmp_path, monkeypatch
):
    real = here / "app.db"
    (tmp_path / "directory").symlink_to(here)
    (tmp_path / "file").symlink_to(real)
    (tmp_path / "twice").symlink_to(tmp_path / "directory" / "app.db")
    names = [
        real,
        "app.db",
        tmp_path / "file",
        tmp_path / "directory" / "app.db",
        tmp_path / "twice",
        "/proc/self/cwd/app.db",
    ]
    providers = [
        SqliteProvider(name, durability="relaxed") for name in names
    ]  # some before the file is there
    for number, provider in enumerate(providers):
        provider.open()
        provider.store.join(a_node(f"n{number}"))
        assert one(provider, a_start(f"i{number}")) == Started()
    everyone = {f"n{number}" for number in range(len(names))}
    for provider in providers:
        assert neighbours(provider) == everyone
        assert provider.store.vanished() == [], "the locks of the other nodes are found, and held"
        assert all(provider.directory.get(f"i{number}") for number in range(len(names)))
    first, *others = providers
    with others[1].store._writer.transaction():
        assert not first._writer._session.lock._lock.try_lock(), "there is one lock of writers"
    others[0]._nodes.close()  # as the death of its process does
    assert first.store.vanished() == ["n1"]
    for provider in providers:
        provider.close()
    beside = {
        name for name in os.listdir(tmp_path) if name not in ("ours", "directory", "file", "twice")
    }
    assert beside == set(), "nothing lies beside the links"


def test_a_link_to_a_file_that_is_not_there_yet_makes_the_file_and_not_a_second_store(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to("data/real.db")
    with opened(tmp_path / "link.db") as by_link, opened(tmp_path / "data" / "real.db") as by_name:
        assert one(by_link, a_start("i")) == Started()
        assert read(by_name, "i").row.instance_id == "i"
    assert (tmp_path / "link.db").is_symlink()


def test_a_name_that_is_not_utf8_is_a_name(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.db"
    with opened(raw) as provider:
        assert one(provider, a_start("i")) == Started()
    assert b"caf\xe9.db" in os.listdir(os.fsencode(tmp_path))


def test_a_circle_of_links_is_an_error_of_the_store(tmp_path):
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(StoreError):
        SqliteProvider(tmp_path / "a.db").open()


# --- names that would damage it -------------------------------------------------------------------


def test_a_file_with_a_second_hard_link_is_refused_by_either_name_until_one_is_gone(tmp_path):
    with opened(tmp_path / "app.db") as running:
        assert one(running, a_start("before")) == Started()
        os.link(tmp_path / "app.db", tmp_path / "other.db")
        for name in ("other.db", "app.db"):
            with pytest.raises(StoreAliased, match="2 names") as raised:
                SqliteProvider(tmp_path / name).open()
            assert raised.value.path == str(tmp_path / name)
            assert raised.value.retryable, "it goes away once the link is removed"
        assert one(running, a_start("after")) == Started(), "who has the file open goes on"
        assert not list(tmp_path.glob("other.db?*")), (
            "no lock and no log was made under the other name"
        )
        (tmp_path / "other.db").unlink()
        with opened(tmp_path / "app.db") as second:
            assert read(second, "after").row.instance_id == "after"


def test_looking_at_a_store_by_a_second_name_is_refused_as_well(tmp_path):
    with opened(tmp_path / "app.db") as provider:
        assert one(provider, a_start("i")) == Started()
    os.link(tmp_path / "app.db", tmp_path / "other.db")
    report = examine(tmp_path / "other.db", SystemClock(), quick=True)
    assert not report.readable
    assert "hard links" in str(report)
    with pytest.raises(StoreAliased):
        back_up(tmp_path / "other.db", tmp_path / "copy.db", SystemClock())
    assert not (tmp_path / "copy.db").exists()


def test_a_file_that_is_mounted_by_itself_is_refused(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text(
        f"27 1 254:0 / / rw - ext4 /dev/vda rw\n36 27 254:0 /host/app.db {tmp_path}/app.db rw - "
        "ext4 /dev/vda rw\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    with pytest.raises(StoreAliased, match="Mount the directory"):
        SqliteProvider(tmp_path / "app.db").open()
    with opened(tmp_path / "neighbour.db"):
        pass


def test_a_link_put_in_the_place_of_the_file_stops_the_store_until_it_is_away(tmp_path):
    with opened(tmp_path / "app.db") as provider, opened(tmp_path / "other.db") as other:
        assert one(provider, a_start("i")) == Started()
        (tmp_path / "app.db").rename(tmp_path / "aside.db")
        (tmp_path / "app.db").symlink_to("other.db")
        with pytest.raises(StoreAliased, match="symbolic link"):
            one(provider, a_start("astray"))
        with pytest.raises(StoreAliased):
            provider.directory.get("i")
        assert other.directory.get("astray") is None
        (tmp_path / "app.db").unlink()
        (tmp_path / "aside.db").rename(tmp_path / "app.db")
        assert one(provider, a_start("late")) == Started()
        assert {instance for instance in ("i", "late") if provider.directory.get(instance)} == {
            "i",
            "late",
        }


# --- what is no path ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("", "names no file"),
        (b"", "names no file"),
        (":memory:", "names no file"),
        ("file:app.db?mode=memory", "URL"),
        ("FILE:///tmp/app.db", "URL"),
        ("sqlite:///app.db", "URL"),
        ("sqlite+aiosqlite:///app.db", "URL"),
        ("~/app.db", "expanduser"),
        ("app\0.db", "NUL"),
        (7, "give a str"),
        (None, "give a str"),
    ],
)
def test_what_names_no_file_is_refused_where_it_is_given(here, path, hint):
    with pytest.raises(InvalidArgument, match=hint):
        SqliteProvider(path)
    assert os.listdir(here) == []


@pytest.mark.parametrize("name", ["file:app.db", "~nobody-of-this-name.db", "a~b.db", "sqlite.db"])
def test_names_that_only_look_odd_are_names(here, name):
    with opened(f"./{name}"):
        pass
    assert (here / name).exists()


# --- the copy, and the files of a DSN -------------------------------------------------------------


def test_a_backup_knows_its_files_by_the_directory_it_was_called_in(here, tmp_path):
    with opened("app.db") as provider:
        assert one(provider, a_start("i")) == Started()
        (tmp_path / "link").symlink_to(here / "app.db")
        copy = back_up(Path("../link"), Path("copy.db"), SystemClock())
    assert copy.path == here / "copy.db"
    assert copy.instances == 1


def test_relative_files_of_a_dsn_are_those_of_the_directory_it_was_given_in(here, monkeypatch):
    dsn = "host=db sslmode=verify-full sslrootcert=certs/ca.pem sslkey=/etc/key.pem passfile=pass"
    monkeypatch.setenv("PGSSLCERT", "mine.pem")
    monkeypatch.setenv("PGPASSFILE", "unused: the DSN names one")
    assert absolute_files(dsn) == {
        "sslrootcert": str(here / "certs/ca.pem"),
        "passfile": str(here / "pass"),
        "sslcert": str(here / "mine.pem"),
    }
    assert absolute_files("host=db sslrootcert=system") == {"sslcert": str(here / "mine.pem")} | {
        "passfile": str(here / "unused: the DSN names one")
    }
