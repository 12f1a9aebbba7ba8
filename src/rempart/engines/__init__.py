"""Adapters to inference servers: one file each, behind one port."""
