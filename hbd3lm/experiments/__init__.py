"""Studies: each one command that ends in a table, a figure and a JSON file."""
