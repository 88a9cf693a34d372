"""From tasks and schedules to tile programs: replaying a trace over compute definitions."""
