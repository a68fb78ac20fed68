"""What each verb of the command line does: `run(args) -> (result for --json, exit code)`."""
