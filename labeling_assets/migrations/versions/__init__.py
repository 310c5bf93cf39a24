"""One migration a file, named by number."""
