"""Raw 3D datasets -> one verified corpus of training shards -> pretrained 3D encoders."""
