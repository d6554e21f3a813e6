"""From encoded bytes to pixels, at a cost that the size of upload and image bounds.

Decoders parse containers (segments, chunks, directories) in Python, eagerly and with few limits: twenty
megabytes of empty segments cost them half a minute. So each container is read here first
(``containers``, ``tiff``), within a budget of parts. The decoder then gets a plain file with only the
parts that make pixels. What is dropped (text, colour profiles, thumbnails, later frames) does not
affect the judged pixels. The orientation is read before it is dropped.
"""
