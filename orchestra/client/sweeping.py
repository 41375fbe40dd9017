"""Deletes what an external storage has and no stored value refers to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from orchestra.client.access import Access
from orchestra.clock import from_micros
from orchestra.errors import InvalidArgument, OrchestraError, StorageUnavailable
from orchestra.options import check_duration
from orchestra.payloads import SealingProvider
from orchestra.payloads.storage import Sweepable, key_of
from orchestra.store.port import Directory

__all__ = ["SweepReport", "sweep"]

_LEAST: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep has found: how many objects the storage had, how many of them stored values
    refer to, how many are too young to judge, and how many were deleted, or would be.
    """

    objects: int
    referred: int
    young: int
    deleted: int
    dry_run: bool


async def sweep(access: Access, older_than: timedelta, *, dry_run: bool) -> SweepReport:
    """See :meth:`Client.sweep_payloads`."""
    check_duration(older_than, "older_than", least=_LEAST)
    provider = access.provider
    external = provider.pipeline.external if isinstance(provider, SealingProvider) else None
    if external is None:
        raise InvalidArgument("the client has no pipeline with External(...); there is no storage")
    storage = external.storage
    if not isinstance(storage, Sweepable):
        raise InvalidArgument(
            f"{storage!r} cannot be swept; give it objects() and delete(key), or let its own rules "
            "delete nothing that is younger than the oldest instance"
        )
    until = from_micros(access.clock.now()) - older_than

    def work(directory: Directory) -> SweepReport:
        # Listed before the references are read: what is put meanwhile is not among them, and each
        # object is put for one value alone.
        objects = list(storage.objects())
        old = [key for key, stored_at in objects if stored_at <= until]
        referred = {key_of(digest) for digest in directory.external()}
        unused = [key for key in old if key not in referred]
        for key in () if dry_run else unused:
            storage.delete(key)
        return SweepReport(
            len(objects),
            sum(key in referred for key, _ in objects),
            len(objects) - len(old),
            len(unused),
            dry_run,
        )

    try:
        return await access.read(work)
    except OrchestraError:
        raise
    except Exception as error:
        raise StorageUnavailable(
            f"{storage!r} could not be swept: {type(error).__name__}: {error}"
        ) from error
