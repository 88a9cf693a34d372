"""From tiles to registers: one bound tile program becomes one kernel of the machine it was bound to."""
