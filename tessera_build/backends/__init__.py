"""Back ends: each turns Target IR into machine code for one family of targets and knows no other back end."""
