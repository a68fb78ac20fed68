"""Waymo Open Dataset (Perception): a Scene per frame, five lidars in the vehicle's frame and five cameras; or clips.

Two sources, for the two releases: `v2` reads Parquet components, `v1` reads TFRecord files with a wire reader of its
own; neither needs TensorFlow or generated code. Both give a `frame.Frame`, from which `scene` makes the Scene, so that
the same frame comes out the same whichever release it was downloaded in. `range_image` holds the geometry of lasers,
`view` that of cameras, `clip` cuts and builds clips.

The formulas are those of the public format description; the official camera and range image code, whose patent licence
is limited to use with the dataset, was not used.
"""
