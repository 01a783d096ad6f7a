"""What stands after a migration, so that what was achieved does not erode.

achieved    what is STRICT, and what is excepted from it today
rules       what a guard keeps out, as one list in CEL; today says the same of what is already there
admission   the rules as manifests, for each engine that can refuse a write
regression  what got weaker between two readings
review      would one write weaken it? webhook answers an API server so
exceptions  what is allowed beyond today, with owner and end
"""
