"""The commands that a person or a scheduler runs; here a file is a command."""

__version__ = "0.1.0"
