"""The benchmark: the program beside its peers, on the same trees, in the same minutes."""
