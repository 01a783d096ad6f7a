"""Expectations: what must hold between workloads and on their ports, written down by their owners and held against an answer.

The answer is a prediction (`predicted`) or what a probe saw on the wire (`observed`); `judge` does not know which.
"""
