"""Releases: a store of immutable versions, and channels that say which of them workers run.

``store`` keeps objects (in a directory or S3), ``layout`` defines the objects of a version,
``records`` a channel's history. ``measure`` runs a candidate on this machine, ``gate`` decides whether
it may follow, and ``channels`` promotes, rolls back and fetches. ``cli`` is the command line.
"""
