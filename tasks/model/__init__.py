"""The words of the program as plain, immutable data; no input or output."""
