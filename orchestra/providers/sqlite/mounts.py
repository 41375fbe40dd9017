"""Refuse network file systems: SQLite's log needs shared memory and locks, and neither works over a
network.

If the file system of a path is unknown, nothing is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestra.errors import NetworkFileSystem

__all__ = ["Mount", "is_mount_point", "mount_of", "require_local"]

_MOUNTS: Final = Path("/proc/self/mountinfo")

_NETWORK: Final = frozenset(
    (
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb",
            "smb2",
            "smb3",
            "smbfs",
            "9p",
            "afs",
            "ncpfs",
            "coda",
            "ceph",
            "lustre",
            "gpfs",
        ),
        *("glusterfs", "beegfs", "orangefs", "pvfs2", "davfs", "vboxsf", "prl_fs"),
        *(
            "sshfs",
            "rclone",
            "s3fs",
            "goofys",
            "gcsfuse",
            "davfs2",
            "ceph-fuse",
            "mount-s3",
            "mountpoint-s3",
            "juicefs",
        ),
        *("curlftpfs", "smbnetfs", "blobfuse", "blobfuse2", "moosefs", "mfs", "seaweedfs", "hdfs"),
    )
)
"""File systems of other machines; also as ``fuse.NAME``."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount of a file. ``point`` is the directory on which the file system is mounted."""

    point: str
    file_system: str

    @property
    def is_network(self) -> bool:
        """Whether it is known to be a network file system."""
        return self.file_system.removeprefix("fuse.") in _NETWORK


def mount_of(path: Path) -> Mount | None:
    """Return the mount of a path, or of the directory in which it would be made; ``None``:
    unknown.
    """
    try:
        lines = _MOUNTS.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    found: Mount | None = None
    for line in lines:
        mount = _read(line)
        # Of stacked mounts the last is visible; a deeper one hides the files below it.
        if (
            mount is not None
            and _lies_in(place, mount.point)
            and (found is None or len(mount.point) >= len(found.point))
        ):
            found = mount
    return found


def is_mount_point(path: Path) -> bool:
    """Return whether something is mounted at this very path; ``False`` if unknown."""
    mount = mount_of(path)
    return mount is not None and mount.point == os.path.realpath(path)


def require_local(path: Path) -> None:
    """Check that a store's file is not on a network file system, as far as this is known.

    Raises:
        NetworkFileSystem: it is.
    """
    mount = mount_of(path)
    if mount is not None and mount.is_network:
        raise NetworkFileSystem(
            f"{path} lies on {mount.point}, a network file system ({mount.file_system}), where "
            "SQLite's log does not work and a store can be damaged. Put it on a local disk. If "
            "you know better: SqliteProvider(..., allow_network_file_system=True)",
            mount_point=mount.point,
            file_system=mount.file_system,
        )


def _read(line: str) -> Mount | None:
    """Read one line: ``36 35 98:0 /root /mount\\040point rw,noatime shared:1 - ext3 /dev/root
    rw``.
    """
    before, separator, after = line.partition(" - ")
    fields = before.split(" ")
    file_system = after.split(" ")[0]
    if not separator or len(fields) < 6 or not file_system:
        return None
    return Mount(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]), file_system)


def _lies_in(place: str, directory: str) -> bool:
    return directory in ("/", place) or place.startswith(f"{directory}/")
