"""Measuring the gateway and the ledger beside others."""
