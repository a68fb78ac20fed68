"""What pretraining leaves behind, by kind: networks with the way their input is made."""
