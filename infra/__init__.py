"""Where and how it runs: the command line, recipes, the Ray job, the planner."""
