"""Bytes to words and back: every format that lies on a cartridge or in the workspace."""
