"""Where labelled images come from. `resolve.open_source` turns what a user typed into a Source."""
