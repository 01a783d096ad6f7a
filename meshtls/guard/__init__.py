"""What stands after a migration, so that what was achieved does not erode.

admission   admission policies that keep a namespace STRICT
"""
