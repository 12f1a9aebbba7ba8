"""Public conformance suites and scripted faults."""
