"""Proofs of the formats that lie on a cartridge."""
