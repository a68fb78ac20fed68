"""How a run is kept: its folder, checkpoints, records, metrics, memory, guards, and the ranks it runs on."""
