"""Where the service runs, and with which code: from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Settings:
    """The settings of the service."""

    database: Path
    versions: tuple[str, ...]
    host: str
    port: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read them."""
        return cls(
            Path(os.environ.get("DATABASE", "chats.db")),
            tuple(os.environ.get("VERSIONS", "1.0.0,2.0.0").split(",")),
            os.environ.get("HOST", "127.0.0.1"),
            int(os.environ.get("PORT", "8000")),
        )
