"""Processes that are killed or stopped while they work, and what must hold afterwards."""
