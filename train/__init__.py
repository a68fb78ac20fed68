"""Shards -> weights: objectives, models, views on the training device, one loop."""
