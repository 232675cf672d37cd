"""Hides pandas from the program under test: users do not have it, and pyarrow acts differently."""

raise ImportError("the program has to do without pandas")
