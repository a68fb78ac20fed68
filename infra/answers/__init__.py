"""What a corpus does not keep of the raw files, and predictions for official servers need: see `infra.answers.raw`."""
