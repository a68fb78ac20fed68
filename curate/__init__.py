"""Scene -> better Scene: superpixels, correspondences, visibility; pure functions without I/O."""
