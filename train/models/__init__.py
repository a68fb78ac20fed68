"""Networks: sparse U-Nets on spconv. Image teachers, which are never trained, live in `train.teachers`."""
