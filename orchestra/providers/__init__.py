"""Stores: the interfaces that one fulfils, the values that cross them, and the implementations."""
