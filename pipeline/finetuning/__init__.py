"""Training the last layers of a network together with a new head, from a cached cut-point."""
