"""The search space: rules that derive schedules from the properties of a task, and the analytic cost behind them."""
