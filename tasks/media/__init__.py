"""Where bytes rest: the only code that touches sources, cartridges and destinations."""
