"""The settings, from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from watches import VERSIONS


@dataclass(frozen=True)
class Settings:
    """The service's settings. Each field is read from the environment variable of its name in
    capitals.
    """

    database: Path = Path("watches.db")
    host: str = "127.0.0.1"
    port: int = 8000
    versions: tuple[str, ...] = tuple(VERSIONS)
    """The versions of the loop in this process, to try out a deploy."""
    inbox_limit: int = 1000
    """How many unread events an instance may have before senders get 429."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings, with the defaults above for missing ones."""
        return cls(
            database=Path(environment.get("DATABASE", cls.database)),
            host=environment.get("HOST", cls.host),
            port=int(environment.get("PORT", cls.port)),
            versions=tuple(environment.get("VERSIONS", ",".join(cls.versions)).split(",")),
            inbox_limit=int(environment.get("INBOX_LIMIT", cls.inbox_limit)),
        )
