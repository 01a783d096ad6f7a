"""Prove on the wire what is reachable, and how: plan, deploy, read and compare are pure; run is the hand."""
