"""Content-matched fakes: photographs, regenerated."""
