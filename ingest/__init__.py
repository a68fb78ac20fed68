"""Raw dataset files -> Scene: one package per dataset, one protocol."""
