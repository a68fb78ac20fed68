"""Scenes in numbers: figures by which one filters, descriptors by which one finds the same place again."""
