"""Cartridges and catalogs that were made to attack."""
