"""Leaving: a corpus as folders and files that know nothing of this project."""
