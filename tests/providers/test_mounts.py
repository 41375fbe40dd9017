"""Where a store may lie: network file systems are refused, by name; where nobody can tell, nothing
is.
"""

from __future__ import annotations

import pytest

from orchestra.errors import NetworkFileSystem, StoreError
from orchestra.providers.sqlite import SqliteProvider, mounts

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard"


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Return a function that lets the kernel seem to have mounted these."""

    def mount(*lines):
        table = tmp_path / "mountinfo"
        table.write_text("\n".join((ROOT, *lines, "")))
        monkeypatch.setattr(mounts, "_MOUNTS", table)

    return mount


def line(point, file_system, *optional):
    escaped = str(point).replace(" ", "\\040")
    return " ".join(
        (
            "36 27 0:52 /export",
            escaped,
            "rw,relatime",
            *optional,
            "-",
            file_system,
            "server:/export rw,vers=4.2",
        )
    )


@pytest.mark.parametrize(
    "file_system",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.glusterfs",
        "ceph",
        "lustre",
    ],
)
def test_a_network_file_system_is_refused_with_its_mount_and_the_remedy(
    tmp_path, mounted, file_system
):
    share = tmp_path / "shared disk"
    share.mkdir()
    mounted(line(share, file_system, "shared:7", "master:1"))
    with pytest.raises(
        NetworkFileSystem, match=r"local disk.*allow_network_file_system=True"
    ) as caught:
        SqliteProvider(share / "store.db").open()
    assert (caught.value.mount_point, caught.value.file_system) == (str(share), file_system)
    assert str(share) in str(caught.value)
    assert isinstance(caught.value, StoreError)
    assert not caught.value.retryable, "waiting does not help"
    assert list(share.iterdir()) == [], "nothing was made there"


def test_it_is_allowed_by_name(tmp_path, mounted):
    mounted(line(tmp_path, "nfs4"))
    provider = SqliteProvider(tmp_path / "store.db", allow_network_file_system=True)
    provider.open()
    provider.close()


@pytest.mark.parametrize(
    "file_system",
    ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuse", "fuse.encfs", "fuseblk"],
)
def test_local_file_systems_are_not_refused(tmp_path, mounted, file_system):
    mounted(line(tmp_path, file_system))
    provider = SqliteProvider(tmp_path / "store.db")
    provider.open()
    provider.close()


def test_the_deepest_mount_counts_and_of_two_upon_each_other_the_last(tmp_path, mounted):
    inner = tmp_path / "local"
    inner.mkdir()
    mounted(line(tmp_path, "nfs4"), line(inner, "ext4"))
    mounts.require_local(inner / "store.db")
    mounted(line(inner, "ext4"), line(tmp_path, "nfs4"))
    mounts.require_local(inner / "store.db")
    mounted(line(tmp_path, "ext4"), line(tmp_path, "nfs4"))
    with pytest.raises(NetworkFileSystem):
        mounts.require_local(tmp_path / "store.db")
    mounted(line(tmp_path, "nfs4"), line(tmp_path, "ext4"))
    mounts.require_local(tmp_path / "store.db")


def test_a_directory_whose_name_begins_alike_is_another_one(tmp_path, mounted):
    (tmp_path / "data-local").mkdir()
    mounted(line(tmp_path / "data", "nfs4"))
    mounts.require_local(tmp_path / "data-local" / "store.db")


def test_a_link_is_followed_to_where_the_file_lies(tmp_path, mounted):
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    mounted(line(share, "nfs4"))
    with pytest.raises(NetworkFileSystem):
        mounts.require_local(tmp_path / "link" / "store.db")


@pytest.mark.parametrize(
    "lines", [(), ("nonsense", "1 2 3 - ", "36 27 0:52 /export /elsewhere rw"), None]
)
def test_where_nobody_can_tell_nothing_is_refused(tmp_path, mounted, monkeypatch, lines):
    if lines is None:
        monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "no such file")
        assert mounts.mount_of(tmp_path) is None
    else:
        mounted(*lines)
    mounts.require_local(tmp_path / "store.db")


def test_this_machines_own_mounts_can_be_read(tmp_path):
    mount = mounts.mount_of(tmp_path)
    assert mount is None or str(tmp_path).startswith(mount.point)
