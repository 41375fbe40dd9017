"""Stores: the interfaces that one must fulfil (:mod:`.interfaces`), the values that cross them (:mod:`.rows`), and the implementations."""
