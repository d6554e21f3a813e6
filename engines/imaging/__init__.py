"""From encoded bytes to pixels, at a cost that the size of the upload and of the image bounds.

Decoders parse containers (segments, chunks, directories) in Python, eagerly and with few limits:
twenty megabytes of empty segments cost them half a minute. So each container is read here first
(``jpeg``, ``png``, ``gif``, ``tiff``, ``avif``), a budget of parts is spent on it, and the decoder
is handed a plain one that holds nothing but what makes pixels. What is dropped (text, colour
profiles, thumbnails, later frames) takes no part in the pixels that are judged; the orientation
is read before it goes (``exif``).
"""
