"""Scene <-> bytes: the contract, the codecs, the containers, the index, the storage and the stream."""
