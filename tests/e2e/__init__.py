"""Promises of the whole program, seen from outside and checked with the system's own tools."""
