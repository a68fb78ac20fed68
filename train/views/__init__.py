"""Views of scenes, made on the training device as batched functions: crops, augmentations, masks."""
