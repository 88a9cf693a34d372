"""Schedule IR (`tsched`): how a task is computed, as compute definitions and a trace of schedule steps."""
