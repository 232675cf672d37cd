"""The stages of a backup: a file is a verb and a Luigi task, a folder is a noun that they share."""
