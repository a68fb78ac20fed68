"""Curators: the index and its descriptors -> which scenes to train on, and how often. No data moves."""
