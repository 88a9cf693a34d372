"""Everything that runs CPU variants: the machine's features, mapped code, thread pools."""
