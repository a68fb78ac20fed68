"""Images from a feature volume: rays, sampling, the signed distance field, NeuS weights, losses."""
