"""Servers that speak the real protocols of outside systems which do not run here, with faults by setting; tiny models."""
