"""The tests of the library, and in :mod:`tests.support` what they share."""
