"""Releases: a store of immutable versions, and channels that say which of them workers run.

``store`` and ``s3`` keep objects (a directory, S3; ``address`` chooses), ``layout`` says which objects there are,
``records`` what a channel's history is made of, ``measure`` and ``latency`` take a candidate's measure on
this machine (``measurements`` holds what they found), ``gate`` says whether it may follow, and ``channels``
promotes, rolls back and fetches. ``cli`` is the command line, ``options`` the part of it that the trainer
has too.
"""
