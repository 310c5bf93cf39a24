"""Servers that speak the real protocols of outside systems, with faults by setting, and tiny models for real ones."""
